"""Initialisation from data, an option of short runs: white latents, codebooks drawn from them.

A departure from the published recipe, off by default and called by the trainer.

B batch, T tokens, M vectors, C channels of a latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gigatok.models.tokenizer.base import Tokenizer
from gigatok.runtime.devices import full_precision
from gigatok.runtime.distributed import assign, whole


@torch.no_grad()
def initialise_from_data(
    tokenizer: Tokenizer, image_BCHW: Tensor, generator: torch.Generator | None = None
) -> None:
    """Whiten the latents of `image_BCHW`, and draw the quantizer's codebooks from them.

    Changes the projection that makes the latents, if the architecture has one, so that they have
    zero mean and unit covariance instead of lying in a narrow cone: of which a codebook would use
    a few rows, and signs would be all alike.

    Raises:
        ValueError: the images have fewer latents than a codebook has rows.
    """
    z_MC = tokenizer.encode_latents(image_BCHW).float().flatten(0, 1)
    rows = tokenizer.quantize.rows_needed
    if len(z_MC) < rows:
        per_image = tokenizer.config.tokens_per_image(tokenizer.image_size)
        raise ValueError(
            f"{len(image_BCHW)} images have {len(z_MC)} latents, too few for "
            f"{rows} codes; pass at least {-(-rows // per_image)} images"
        )
    # White to more than the three digits of TF32.
    with full_precision(z_MC.device):
        if (projection := tokenizer.latent_projection) is not None:
            z_MC = whiten(projection, z_MC)
        tokenizer.quantize.initialise(z_MC, generator)


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
