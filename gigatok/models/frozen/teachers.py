"""Frozen networks whose patch features a tokenizer's decoder is drawn to (GigaTok, Table 6).

Shapes: B batch, D channels, G side of the feature grid, T = G * G patches in row-major order,
C principal components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config.kinds.teachers import FoundTeacher, TeacherCost, find_teacher
from gigatok.models.frozen.backbones import fold_batch_norms, mobilenetv2, resnet50
from gigatok.models.frozen.layout import MOBILENETV2_COST, PIXELS_COST, RESNET50_COST

# Channel statistics of [0, 1] RGB over ImageNet, as torchvision and DINOv2 use them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# In [0, 255], blue first: Caffe's models had it, and Keras' ResNet50 with them.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


class Teacher(nn.Module):
    """Frozen network, and how images are put to it.

    Attributes:
        dim: channels D of its features.
        grid: side G of its feature grid.
        input_size: side to which images are resized.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor],
        cost: TeacherCost,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.dim, self.grid, self.input_size = cost.dim, cost.grid, cost.side

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Compute features (B, T, D) of images (B, 3, H, W) in [-1, 1].

        As the authors do it, images are normalised first, then resized bicubically without
        antialiasing.
        """
        x = self.preprocess((images + 1) / 2)
        size = (self.input_size, self.input_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bicubic", align_corners=False)
        # (B, 3, side, side) -> (B, T, D).
        features: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return features


def build_teacher(name: str, device: str = "cpu", found: FoundTeacher | None = None) -> Teacher:
    """Build a teacher by name, its weights fetched if need be.

    Args:
        name: value of `tokenizer.teacher`.
        device: for the network.
        found: what was found out when the trial was planned.

    Raises:
        ValueError: the name is unknown, an optional package is missing, its files are others than
            were planned with, or what was registered is no teacher.
        AssetError: the weights cannot be had.
    """
    kind, which = find_teacher(name)
    if found is not None and found.content != import_module(kind.looks).content(name):
        raise ValueError(
            f"teacher {name} has changed since the launch was planned; launch the sweep again"
        )
    built = resolve_name(kind.module)(*([which] if which else []))
    teacher = built if isinstance(built, Teacher) else _wrapped(name, built, kind.side)
    return teacher.to(device)


def build_measured(name: str, code: str | None) -> Teacher:
    """Build a teacher whose costs are measured; `code` tells versions of its plug-in apart."""
    return build_teacher(name)


def _wrapped(name: str, call: Any, side: int) -> Teacher:
    """Make a teacher of a callable that maps images in [-1, 1] to a grid of features."""
    if not callable(call):
        raise ValueError(
            f"teacher {name}: its module gives a {type(call).__name__}; it must give a Teacher, "
            "or a callable from images (B, 3, H, W) to features (B, D, G, G)"
        )
    # Before it is called: batch norms in training mode would take statistics of what they see.
    network = Patches(call).eval()
    with torch.no_grad():
        shape = tuple(call(torch.zeros(2, 3, side, side)).shape)
    if len(shape) != 4 or shape[0] != 2 or shape[2] != shape[3]:
        raise ValueError(
            f"teacher {name} maps 2 images of {side} pixels to {shape}; features must be "
            "(2, D, G, G), with as many rows as columns"
        )
    return Teacher(network, symmetric, TeacherCost(shape[1], shape[2], side))


def normalised_for_imagenet(images: Tensor) -> Tensor:
    """Bring [0, 1] RGB to zero mean and unit variance over ImageNet."""
    mean, std = per_channel(_IMAGENET_MEAN, images), per_channel(_IMAGENET_STD, images)
    return (images - mean) / std


def per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    """Make constants (C, 1, 1) of the images' type on their device."""
    # Filled there: to copy them from the CPU would wait for the device in every step.
    return torch.cat([images.new_full((1, 1, 1), value) for value in values])


def symmetric(images: Tensor) -> Tensor:
    """Map [0, 1] to [-1, 1], as SigLIP does."""
    return 2 * images - 1


def _caffe(images: Tensor) -> Tensor:
    """Turn [0, 1] RGB into BGR in [0, 255] less the ImageNet mean, as Keras' ResNet50 expects."""
    return 255 * images.flip(1) - per_channel(_CAFFE_MEAN_BGR, images)


class Patches(nn.Module):
    """Network whose map (B, D, G, G) is flattened to (B, T, D)."""

    def __init__(self, backbone: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) -> (B, T, D)."""
        patches: Tensor = self.backbone(x).flatten(2).transpose(1, 2)
        return patches


def _optimised(backbone: nn.Module) -> nn.Module:
    """Fold batch norms into convolutions and lay memory out channels-last: 3.5 times faster."""
    fold_batch_norms(backbone.eval())
    return Patches(backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def build_mobilenetv2() -> Teacher:
    """Build ImageNet's MobileNetV2 at 128 px: fast enough for a laptop's CPU."""
    network = _optimised(mobilenetv2())
    return Teacher(network, normalised_for_imagenet, MOBILENETV2_COST)


def build_resnet50() -> Teacher:
    """Build ImageNet's ResNet50 at 128 px: the best teacher that needs no hub."""
    return Teacher(_optimised(resnet50()), _caffe, RESNET50_COST)


class _PixelPatches(nn.Module):
    """Pixels of each patch, in place of a network."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, 8, 8) -> (B, 16, 12)."""
        # (B, 12, 16) -> (B, 16, 12).
        return F.unfold(x, kernel_size=2, stride=2).transpose(1, 2)


def build_pixels() -> Teacher:
    """Take 2 x 2 pixels of the image at 8 px: no semantics and no download, for tests."""
    return Teacher(_PixelPatches(), symmetric, PIXELS_COST)
