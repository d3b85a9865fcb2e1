"""Training losses of the tokenizer, without the adversarial ones (`adversarial`).

B batch, N grid cells, S teacher channels, P teacher cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gigatok.config import TokenizerConfig
from gigatok.models.losses.base import Loss
from gigatok.models.tokenizer.base import TokenizerOutput
from gigatok.runtime.devices import full_precision

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Function of two batches of images in [-1, 1] that returns a distance per image, (B,)."""


def tokenizer_losses(
    config: TokenizerConfig,
    output: TokenizerOutput,
    image_BCHW: Tensor,
    teacher_BPS: Tensor | None,
    perceptual: Perceptual | None,
) -> dict[str, Tensor]:
    """Compute all terms, unweighted except the quantizer's, and `loss`, their weighted sum.

    Terms of weight 0 are neither computed nor returned. Formula: the reference's `VQLoss`.

    Args:
        config: weights.
        output: the tokenizer's output in training mode.
        image_BCHW: images in [-1, 1].
        teacher_BPS: teacher features; None without semantic regularisation.
        perceptual: LPIPS; None if it has no weight.
    """
    assert output.losses is not None, "losses exist in training mode only"
    reconstruction = F.mse_loss(output.reconstruction_BCHW, image_BCHW)
    terms = {"reconstruction_loss": reconstruction}
    # The quantizer weighs its own terms: commitment and entropy belong to its definition.
    loss = config.reconstruction_weight * reconstruction + sum(output.losses.values())
    if perceptual is not None:
        pair = jitter(image_BCHW, output.reconstruction_BCHW, config.perceptual_jitter)
        terms["perceptual_loss"] = perceptual(*pair).mean()
        loss = loss + config.perceptual_weight * terms["perceptual_loss"]
    if teacher_BPS is not None:
        assert output.semantic_BNS is not None
        terms["semantic_loss"] = semantic_loss(output.semantic_BNS, teacher_BPS)
        loss = loss + config.semantic_weight * terms["semantic_loss"]
    own = {f"{name}_loss": term for name, term in output.losses.items()}
    return {"loss": loss, **terms, **own}


def extra_losses(
    config: TokenizerConfig,
    losses: Sequence[Loss],
    output: TokenizerOutput,
    image_BCHW: Tensor,
    step: int,
) -> dict[str, Tensor]:
    """Compute the extra losses, unweighted, and `loss`, their weighted sum.

    Args:
        config: weights.
        losses: built of `config.extra_losses`, at least one.
        output: the tokenizer's output in training mode.
        image_BCHW: images in [-1, 1].
        step: counted from 1.
    """
    # Always in float32, whatever autocast says: most are sums over many values, and Fourier
    # transforms know no 16 bits.
    with full_precision(image_BCHW.device):
        output = output._replace(reconstruction_BCHW=output.reconstruction_BCHW.float())
        values = [loss(output, image_BCHW.float(), step) for loss in losses]
    terms = {f"{one.name}_loss": v for one, v in zip(config.extra_losses, values, strict=True)}
    weighted = [one.weight * v for one, v in zip(config.extra_losses, values, strict=True)]
    return {"loss": torch.stack(weighted).sum(), **terms}


def shortcut_losses(
    config: TokenizerConfig,
    output: TokenizerOutput,
    image_BCHW: Tensor,
    perceptual: Perceptual | None,
) -> dict[str, Tensor]:
    """Compute the auxiliary terms of early training, unweighted, and `loss`, their weighted sum.

    The decoder's grid is drawn to the encoder's. If the encoder's grid was decoded directly, that
    image is compared with the original as the reconstruction is.
    """
    assert output.spatial_BCHW is not None, "checked by `TokenizerConfig`"
    assert output.rec_spatial_BCHW is not None
    # Detached: the encoder is not to move towards what the decoder makes of its codes.
    grids = (output.rec_spatial_BCHW, output.spatial_BCHW.detach())
    feature = FEATURE_LOSSES[config.shortcut_feature_loss](*grids)
    terms = {"shortcut_feature_loss": feature}
    loss = config.shortcut_feature_weight * feature
    if output.shortcut_BCHW is not None:
        terms["shortcut_reconstruction_loss"] = F.mse_loss(output.shortcut_BCHW, image_BCHW)
        loss = loss + config.reconstruction_weight * terms["shortcut_reconstruction_loss"]
        # Drawn again: the padding of this image need not be that of the other.
        if perceptual is not None:
            pair = jitter(image_BCHW, output.shortcut_BCHW, config.perceptual_jitter)
            terms["shortcut_perceptual_loss"] = perceptual(*pair).mean()
            loss = loss + config.perceptual_weight * terms["shortcut_perceptual_loss"]
    return {"loss": loss, **terms}


FEATURE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "cosine": lambda x_BCHW, y_BCHW: 1 - F.cosine_similarity(x_BCHW, y_BCHW, dim=1).mean(),
}
"""Distance of two grids (B, C, H, W), by `tokenizer.shortcut_feature_loss`."""


def summed(*parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the terms of all parts; `loss` is the sum of their losses."""
    terms = {name: value for part in parts for name, value in part.items()}
    return {**terms, "loss": torch.stack([part["loss"] for part in parts]).sum()}


def semantic_loss(student_BPS: Tensor, teacher_BPS: Tensor) -> Tensor:
    """Compute the mean negative cosine per cell, in [-1, 1] (paper section 3.2)."""
    # (B, P, S) both; cached features are float16.
    return -F.cosine_similarity(student_BPS, teacher_BPS.to(student_BPS.dtype), dim=-1).mean()


def jitter(image_BCHW: Tensor, other_BCHW: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Pad both images (B, 3, H, W) at the top and left by the same random 0 to `largest` pixels.

    A network whose first convolution has a stride sees each pixel at one phase only, so training
    against it imprints a texture with that period. Moving the phase breaks it.
    """
    if largest == 0:
        return image_BCHW, other_BCHW
    # Drawn on the CPU, so that reading them does not wait for the device.
    left, top = torch.randint(largest + 1, (2,)).tolist()
    padding = (left, 0, top, 0)
    return (
        # Reflected: a constant border would be an edge that neither image has.
        F.pad(image_BCHW, padding, mode="reflect"),
        F.pad(other_BCHW, padding, mode="reflect"),
    )
