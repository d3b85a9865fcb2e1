"""Discriminators of the adversarial loss: PatchGAN, and heads on DINO features.

Modules and parameters are named as in the published checkpoints. Both take images in [-1, 1] and
return one logit per patch, large where the patch looks real.

B batch, G virtual batches of b images each, C channels, L positions, H W image or map.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from gigatok.config import PATCHGAN_SIDE
from gigatok.models.frozen.teachers import normalised_for_imagenet
from gigatok.models.judges.diffaug import augment
from gigatok.models.judges.dino import DINOSmall, load_dino
from gigatok.models.judges.layout import DINO, HEAD_KERNELS, PATCHGAN, READOUTS
from gigatok.runtime.distributed import joint_mean, world

# Both numbers are those of the authors' DINO discriminator.
CROP_PROBABILITY = 0.5
VIRTUAL_BATCH = 8
_SLOPE = 0.2  # negative slope of every leaky ReLU, as in pix2pix


class BatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes together.

    So the number of processes does not change what is learned. The authors normalise over the
    images of each process, and the paper does not say how many there were.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise (B, C, H, W), of as many images in every process."""
        if world() == 1 or not self.training:
            return super().forward(x_BCHW)
        x = x_BCHW.float()
        mean_C = joint_mean(x.mean((0, 2, 3)))
        centred = x - mean_C[:, None, None]
        variance_C = joint_mean(centred.square().mean((0, 2, 3)))
        self._track(mean_C.detach(), variance_C.detach(), world() * x[:, 0].numel())
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        out = centred * scale_C[:, None, None] + self.bias[:, None, None]
        return out.to(x_BCHW.dtype)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        """Update running statistics as `nn.BatchNorm2d` does, the variance unbiased."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * count / (count - 1), self.momentum)


class PatchGAN(nn.Module):
    """Discriminator of 70-pixel patches (pix2pix); 256-pixel images give 30 x 30 logits.

    Batch norms are over the images of one call: real and fake images go through it separately.
    """

    def __init__(self) -> None:
        super().__init__()
        first, *inner, last = PATCHGAN
        layers: list[nn.Module] = [nn.Conv2d(*first), nn.LeakyReLU(_SLOPE)]
        for shape in inner:
            conv, norm = nn.Conv2d(*shape, bias=False), BatchNorm(shape.outputs)
            layers += [conv, norm, nn.LeakyReLU(_SLOPE)]
        self.main = nn.Sequential(*layers, nn.Conv2d(*last))
        # The initialisation of pix2pix.
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Judge patches: (B, 3, H, W) -> logits (B, 1, H/8 - 2, W/8 - 2).

        Raises:
            ValueError: the images are too small for a single patch.
        """
        if min(image_BCHW.shape[-2:]) < PATCHGAN_SIDE:
            raise ValueError(
                f"PatchGAN needs images of {PATCHGAN_SIDE} pixels or more, "
                f"got {tuple(image_BCHW.shape[-2:])}"
            )
        logits: Tensor = self.main(image_BCHW)
        return logits


def virtual_batches(images: int) -> int:
    """Count the virtual batches into which a forward pass of so many images splits.

    Raises:
        ValueError: they would not be of one size.
    """
    groups = -(-images // VIRTUAL_BATCH)
    if images % groups:
        raise ValueError(
            "the dino discriminator needs a batch that splits into equal parts of at most "
            f"{VIRTUAL_BATCH}; a process has {images}"
        )
    return groups


class LocalBatchNorm(nn.Module):
    """Batch norm over virtual batches of neighbouring images, without running statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Normalise over the virtual batch and positions, in float32.

        Raises:
            ValueError: the batch does not split into virtual batches of one size.
        """
        groups = virtual_batches(len(x_BCL))
        x_GbCL = x_BCL.float().reshape(groups, -1, *x_BCL.shape[1:])
        variance, mean = torch.var_mean(x_GbCL, dim=(1, 3), keepdim=True, correction=0)
        # The authors' epsilon; torch's default is 1e-5.
        x_BCL = ((x_GbCL - mean) / (variance + 1e-6).sqrt()).flatten(0, 1)
        return x_BCL * self.weight[:, None] + self.bias[:, None]


class Residual(nn.Module):
    """Residual branch whose sum keeps unit variance: (f(x) + x) / sqrt 2."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Add the branch: (B, C, L) -> (B, C, L)."""
        out: Tensor = (self.fn(x_BCL) + x_BCL) * 2**-0.5
        return out


def _block(kernel: int) -> nn.Sequential:
    d = DINO.width
    conv = nn.Conv1d(d, d, kernel, padding=kernel // 2, padding_mode="circular")
    # The old form of spectral norm: the published checkpoints have its keys (`weight_orig`).
    return nn.Sequential(spectral_norm(conv), LocalBatchNorm(d), nn.LeakyReLU(_SLOPE))


def _head() -> nn.Sequential:
    inside, around = HEAD_KERNELS
    return nn.Sequential(
        _block(inside), Residual(_block(around)), spectral_norm(nn.Conv1d(DINO.width, 1, 1))
    )


class DINODiscriminator(nn.Module):
    """Five convolutional heads on the frozen features of DINO ViT-S/16.

    Images are augmented first (`gigatok.models.judges.diffaug`). The backbone is no submodule: it
    is neither trained nor saved, nor moved by `to`.

    Args:
        backbone: frozen and on the device that the images will be on.
    """

    def __init__(self, backbone: DINOSmall) -> None:
        super().__init__()
        self._backbone = (backbone,)  # a tuple hides it from `modules` and `state_dict`
        self.heads = nn.ModuleList(_head() for _ in range(1 + len(READOUTS)))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Judge patches at five depths: (B, 3, H, W) -> logits (B, 5 * 196)."""
        image = view_for_dino(augment(image_BCHW))
        logits = [
            # Each patch plus the class token: (B, 197, D) -> (B, D, 196) -> (B, 196).
            head((stream_BTD[:, 1:] + stream_BTD[:, :1]).transpose(1, 2)).flatten(1)
            for head, stream_BTD in zip(
                self.heads, self._backbone[0].streams(image, READOUTS), strict=True
            )
        ]
        return torch.cat(logits, dim=1)


def view_for_dino(image_BCHW: Tensor) -> Tensor:
    """Bring images in [-1, 1] into DINO's form: ImageNet-normalised, 224 pixels.

    Larger images are cropped in half of the batches, all at one random place, and shrunk by area
    in the other half. Smaller images are enlarged bicubically; the authors have none.
    """
    x, side = normalised_for_imagenet((image_BCHW + 1) / 2), DINO.side
    height, width = x.shape[-2:]
    if min(height, width) <= side:
        if height == width == side:
            return x
        return F.interpolate(x, (side, side), mode="bicubic", align_corners=False)
    # Drawn on the CPU, so that reading them does not wait for the device, and all three always, so
    # that what is drawn later does not depend on the outcome.
    crop, top, left = torch.rand(3).tolist()
    if crop < CROP_PROBABILITY:
        y0, x0 = int(top * (height - side + 1)), int(left * (width - side + 1))
        return x[:, :, y0 : y0 + side, x0 : x0 + side]
    return F.interpolate(x, (side, side), mode="area")


def build_discriminator(name: str, device: str) -> nn.Module:
    """Build a discriminator by the name that `tokenizer.discriminator` takes, on a device.

    Raises:
        ValueError: `dino`, and its backbone cannot be had.
    """
    return DISCRIMINATORS[name](device).to(device)


DISCRIMINATORS: dict[str, Callable[[str], nn.Module]] = {
    "patchgan": lambda device: PatchGAN(),
    "dino": lambda device: DINODiscriminator(load_dino().to(device)),
}
