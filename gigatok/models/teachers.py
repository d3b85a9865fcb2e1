"""Frozen networks whose patch features a tokenizer's decoder is drawn to (spec 4).

Shapes: B batch, D channels, G side of the feature grid, T = G * G patches in row-major order,
C principal components.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.models.backbones import fold_batch_norms, mobilenetv2, resnet50

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_DINOV2_HUB = "facebook/dinov2-base"


class Teacher(nn.Module):
    """A frozen network and how images are put to it.

    Attributes:
        dim: channels D of its features.
        grid: side G of its feature grid.
        input_size: side to which images are resized.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor],
        *,
        dim: int,
        grid: int,
        input_size: int,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.dim, self.grid, self.input_size = dim, grid, input_size

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features (B, T, D) of images (B, 3, H, W) in [-1, 1].

        As the reference does it, images are normalised first, then resized bicubically without
        antialiasing.
        """
        x = self.preprocess((images + 1) / 2)
        size = (self.input_size, self.input_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bicubic", align_corners=False)
        features: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return features


def build_teacher(name: str, device: str = "cpu") -> Teacher:
    """A teacher by name, its weights fetched if need be.

    Raises:
        ValueError: If the name is unknown, or an optional package is missing.
        AssetError: If the weights cannot be had.
    """
    if name not in TEACHERS:
        raise ValueError(f"no teacher {name!r}; there are {', '.join(sorted(TEACHERS))}")
    return TEACHERS[name]().to(device)


def normalised_for_imagenet(images: Tensor) -> Tensor:
    """[0, 1] RGB to zero mean and unit variance over ImageNet."""
    mean = images.new_tensor(_IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(_IMAGENET_STD)[:, None, None]
    return (images - mean) / std


def _caffe(images: Tensor) -> Tensor:
    """[0, 1] RGB to BGR in [0, 255] less the ImageNet mean, as Keras' ResNet50 expects."""
    return 255 * images.flip(1) - images.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]


class _Patches(nn.Module):
    """Flattens a backbone's map (B, D, G, G) to (B, T, D)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, T, D)."""
        patches: Tensor = self.backbone(x).flatten(2).transpose(1, 2)
        return patches


def _optimised(backbone: nn.Module) -> nn.Module:
    """Fold batch norms into convolutions and lay memory out channels-last: 3.5 times faster."""
    fold_batch_norms(backbone.eval())
    return _Patches(backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _mobilenetv2() -> Teacher:
    """ImageNet MobileNetV2 at 128 px: fast enough for a laptop's CPU."""
    return Teacher(
        _optimised(mobilenetv2()), normalised_for_imagenet, dim=1280, grid=4, input_size=128
    )


def _resnet50() -> Teacher:
    """ImageNet ResNet50 at 128 px: the best teacher that needs no hub."""
    return Teacher(_optimised(resnet50()), _caffe, dim=2048, grid=4, input_size=128)


class _Dinov2Patches(nn.Module):
    """The normalised patch tokens of transformers' DINOv2."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, T, D), the class token dropped."""
        tokens: Tensor = self.model(x).last_hidden_state[:, 1:]
        return tokens


def _dinov2() -> Teacher:
    """DINOv2 ViT-B/14 at 224 px, the paper's teacher, from `$GIGATOK_DINOV2` or the hub."""
    try:
        from transformers import Dinov2Model
    except ImportError as error:
        raise ValueError(
            "tokenizer.teacher dinov2 needs transformers: pip install 'gigatok-scaling[dinov2]' "
            f"(or take another teacher: {', '.join(sorted(TEACHERS))})"
        ) from error
    source = os.environ.get("GIGATOK_DINOV2", _DINOV2_HUB)
    try:
        model = Dinov2Model.from_pretrained(source)
    except OSError as error:
        raise ValueError(
            f"cannot load DINOv2 from {source}: {error}\nSet GIGATOK_DINOV2 to a folder that "
            f"holds config.json and model.safetensors of {_DINOV2_HUB}"
        ) from error
    size = 224
    patch = model.config.patch_size
    assert isinstance(patch, int), "DINOv2 has square patches"
    grid = size // patch
    _resample_positions(model.embeddings, grid)
    dim = model.config.hidden_size
    return Teacher(
        _Dinov2Patches(model), normalised_for_imagenet, dim=dim, grid=grid, input_size=size
    )


def _resample_positions(embeddings: Any, grid: int) -> None:
    """Resample the positional table to our grid once, antialiased, as the reference does.

    transformers would otherwise resample it in every forward pass, without antialiasing.
    """
    table = embeddings.position_embeddings.data
    cls, patches = table[:, :1], table[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    map_ = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    map_ = F.interpolate(map_, (grid, grid), mode="bicubic", antialias=True)
    resampled = torch.cat([cls, map_.flatten(2).transpose(1, 2)], dim=1)
    embeddings.position_embeddings = nn.Parameter(resampled, requires_grad=False)


class _PixelPatches(nn.Module):
    """The pixels of each patch, in place of a network."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 16, 12)."""
        return F.unfold(x, kernel_size=2, stride=2).transpose(1, 2)


def _pixels() -> Teacher:
    """2 x 2 pixels of the image at 8 px: no semantics and no download, for tests."""
    return Teacher(_PixelPatches(), lambda image: 2 * image - 1, dim=12, grid=4, input_size=8)


TEACHERS: dict[str, Callable[[], Teacher]] = {
    "mobilenetv2": _mobilenetv2,
    "resnet50": _resnet50,
    "dinov2": _dinov2,
    "pixels": _pixels,
}
