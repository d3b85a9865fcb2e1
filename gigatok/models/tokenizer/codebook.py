"""Options of short runs that keep a codebook in use: initialisation from data, and restarts.

Both are departures from the published recipe, off by default and called by the trainer.

B batch, T tokens, M vectors, C codebook_dim, K codebook_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.models.quantizers.vq import VectorQuantizer
from gigatok.models.tokenizer.tokenizer import Tokenizer
from gigatok.runtime.distributed import assign, whole


@torch.no_grad()
def initialise_from_data(
    tokenizer: Tokenizer, image_BCHW: Tensor, generator: torch.Generator | None = None
) -> None:
    """Whiten the latents of `image_BCHW` and draw the codebook from them.

    Changes `quant_conv`, so that latents have zero mean and unit covariance instead of lying in
    a narrow cone, and then every codebook row.

    Raises:
        ValueError: the images have fewer latents than the codebook has rows.
    """
    z_MC = tokenizer.encode_latents(image_BCHW).float().flatten(0, 1)
    codebook_KC = tokenizer.quantize.embedding.weight
    if len(z_MC) < len(codebook_KC):
        per_image = tokenizer.config.tokens_per_image(tokenizer.image_size)
        raise ValueError(
            f"{len(image_BCHW)} images have {len(z_MC)} latents, too few for "
            f"{len(codebook_KC)} codes; pass at least {-(-len(codebook_KC) // per_image)} images"
        )
    z_MC = whiten(tokenizer.quant_conv, z_MC)
    rows_K = torch.randperm(len(z_MC), generator=generator)[: len(codebook_KC)].to(z_MC.device)
    assign(codebook_KC, F.normalize(z_MC[rows_K], dim=-1))


@torch.no_grad()
def whiten(projection: nn.Conv2d, z_MC: Tensor) -> Tensor:
    """Compose a 1x1 projection with the map that whitens its outputs `z_MC`; return them white.

    The map is the inverse square root of the covariance, the one nearest to the identity.
    Directions with less than 1e-6 of the largest variance are not blown up further.
    """
    assert projection.bias is not None
    mean_C = z_MC.mean(0)
    variance_C, basis_CC = torch.linalg.eigh(torch.cov(z_MC.T))
    variance_C = variance_C.clamp(min=1e-6 * variance_C[-1])
    map_CC = basis_CC * variance_C.rsqrt() @ basis_CC.T
    # A (W x + b - mean) = (A W) x + A (b - mean).
    weight, bias = whole(projection.weight), whole(projection.bias)
    assign(projection.weight, (map_CC @ weight.flatten(1)).view_as(weight))
    assign(projection.bias, map_CC @ (bias - mean_C))
    white_MC: Tensor = (z_MC - mean_C) @ map_CC
    return white_MC


@torch.no_grad()
def restart_dead_codes(
    quantizer: VectorQuantizer, z_BTC: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Replace codes that the usage window does not hold by random latents of a batch.

    Args:
        quantizer: whose codebook to change.
        z_BTC: latents before quantisation.
        generator: random numbers, on the CPU.

    Returns:
        Number of replaced codes, int64 and still on the device.
    """
    z_MC = F.normalize(z_BTC.float().flatten(0, 1), dim=-1)
    used_K = quantizer.used_codes()
    # Drawn without replacement: if two rows were equal, one would never win and stay dead.
    order_M = torch.randperm(len(z_MC), generator=generator).to(z_MC.device)
    # The i-th dead code takes the i-th drawn latent; more dead codes than latents start over.
    rank_K = (~used_K).long().cumsum(0) - 1
    rows_K = order_M[rank_K.clamp(min=0) % len(z_MC)]
    codebook_KC = whole(quantizer.embedding.weight)
    assign(quantizer.embedding.weight, torch.where(used_K[:, None], codebook_KC, z_MC[rows_K]))
    return (~used_K).sum()
