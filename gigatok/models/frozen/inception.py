"""The Inception network of FID (TensorFlow graph of 2015-12-05) as plain convolutions.

The weights come from a TorchScript of that graph; batch norm is folded into the convolutions
and memory is channels-last, which is what makes it fast on a CPU.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gigatok.data.assets import fetch
from gigatok.files.foreign_weights import flaw
from gigatok.models.frozen.layout import INCEPTION
from gigatok.models.shapes import Conv, FixedNetwork, Pool
from gigatok.runtime.devices import full_precision

FEATURES = 2048  # channels of `pool_3`, which FID reads
STANDARD_SIDE = 299
"""Side at which FID is defined."""
MIN_SIDE = 75
"""Smallest side: below it the map in front of the last stride-2 block is empty."""
SPATIAL_LAYER, SPATIAL_CHANNELS = "mixed_6", 7
"""Block that sFID reads (Nash 2021): ADM's `mixed_6/conv`, whose channels come first in it."""
CLASSIFIER_VARIABLE = "GIGATOK_INCEPTION_CLASSIFIER"
CLASSES = 1008  # outputs of the 2015 graph, more than ImageNet's 1000 classes
_BN_EPS = 1e-3  # of the TensorFlow graph; torch's default is 1e-5


class _Concat(nn.ModuleDict):
    """Branches side by side, whose channels are concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, sum of branch channels, H', W')."""
        return torch.cat([branch(x) for branch in self.values()], dim=1)


def _build(shape: FixedNetwork) -> nn.Module:
    """Build a part of the network; batch norms are folded into the biases of convolutions."""
    if isinstance(shape, Conv):
        return nn.Sequential(nn.Conv2d(*shape), nn.ReLU(inplace=True))
    if isinstance(shape, Pool):
        if shape.average:
            window = (shape.kernel, shape.stride, shape.padding)
            # TensorFlow's SAME pooling leaves the padding out of the average.
            return nn.AvgPool2d(*window, count_include_pad=False)
        return nn.MaxPool2d(shape.kernel, shape.stride, shape.padding)
    if isinstance(shape, Mapping):
        return _Concat({name: _build(branch) for name, branch in shape.items()})
    return nn.Sequential(*map(_build, shape))


class Activations(NamedTuple):
    """Activations that metrics read for a batch.

    Attributes:
        pool: the last map averaged, (B, 2048): FID, KID, precision and recall.
        spatial: the first 7 channels of `mixed_6` flattened, (B, 7 * 17 * 17) at 299: sFID.
    """

    pool: Tensor
    spatial: Tensor


class Inception(nn.Module):
    """Network that computes FID features of images.

    Attributes:
        resolution: side to which images are resized. The network pools its last map whatever
            its size, so other sides than 299 work, but their distances are not comparable.
    """

    def __init__(self, resolution: int = STANDARD_SIDE) -> None:
        super().__init__()
        if resolution < MIN_SIDE:
            raise ValueError(
                f"evaluation.resolution {resolution} is too small for Inception: its last maps "
                f"would be empty; give {MIN_SIDE} or more (the standard is {STANDARD_SIDE})"
            )
        self.resolution = resolution
        self.layers = nn.Sequential(
            OrderedDict({name: _build(shape) for name, shape in INCEPTION.items()})
        )

    def forward(self, images: Tensor) -> Activations:
        """Compute features of RGB images (B, 3, H, W) with values in [0, 255], of any dtype."""
        x = resize_like_tensorflow(images.float(), self.resolution)
        # The graph's own scaling, 128 and not 127.5.
        x = ((x - 128) / 128).contiguous(memory_format=torch.channels_last)
        spatial: Tensor | None = None
        for name, layer in self.layers.named_children():
            x = layer(x)
            if name == SPATIAL_LAYER:
                # (B, 768, 17, 17) -> (B, 2023) at 299 pixels.
                spatial = x[:, :SPATIAL_CHANNELS].flatten(1)
        assert spatial is not None
        # (B, 2048, 8, 8) -> (B, 2048) at 299 pixels.
        return Activations(x.mean(dim=(2, 3)), spatial)


def resize_like_tensorflow(images: Tensor, side: int) -> Tensor:
    """Resize (B, C, H, W) bilinearly as TensorFlow 1 did: no half-pixel centres, no antialias.

    Output pixel i reads position i * input / output, so the image shifts by up to half a pixel
    against `F.interpolate`. The FID graph does this, and published numbers include it.
    """
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    rows = _interpolation_matrix(height, side).to(images)
    columns = _interpolation_matrix(width, side).to(images)
    # TF32 would round pixels by a tenth of a grey level.
    with full_precision(images.device):
        return rows @ (images @ columns.T)


def _interpolation_matrix(size_in: int, size_out: int) -> Tensor:
    """Make the (size_out, size_in) matrix of a one-dimensional linear resize."""
    position = torch.arange(size_out, dtype=torch.float64) * (size_in / size_out)
    low = position.long()
    high = (low + 1).clamp(max=size_in - 1)
    weight = position - low
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    row = torch.arange(size_out)
    # Added, not assigned: at the border both weights fall on the last pixel.
    matrix[row, low] += 1 - weight
    matrix[row, high] += weight
    return matrix


class _Affine(NamedTuple):
    """Convolution of a weight file with its batch norm."""

    weight: Tensor
    scale: Tensor
    """Per output channel, gamma / sqrt(variance + eps)."""
    mean: Tensor
    beta: Tensor


def _read_torchscript(path: Path) -> list[_Affine]:
    """Read the convolutions of the TorchScript; its batch norm has no gamma."""
    state = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    return [
        _Affine(
            state[f"{name}.weight"],
            (state[f"{name}.var"] + _BN_EPS).rsqrt(),
            state[f"{name}.mean"],
            state[f"{name}.beta"],
        )
        for name in names
    ]


def _read_state_dict(path: Path) -> list[_Affine]:
    """Read the convolutions of `pt_inception-2015-12-05-*.pth`, the file of pytorch-fid."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = [key.removesuffix(".conv.weight") for key in state if key.endswith(".conv.weight")]
    return [
        _Affine(
            state[f"{name}.conv.weight"],
            state[f"{name}.bn.weight"] * (state[f"{name}.bn.running_var"] + _BN_EPS).rsqrt(),
            state[f"{name}.bn.running_mean"],
            state[f"{name}.bn.bias"],
        )
        for name in names
    ]


def load_weights(network: Inception, path: Path) -> None:
    """Fill a network from either weight file, folding batch norm into the convolutions.

    Both files list the 94 convolutions in the order in which this module registers them.

    Raises:
        ValueError: If the file does not hold this network.
    """
    read = _read_state_dict if path.suffix == ".pth" else _read_torchscript
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    sources = read(path)
    shapes = [tuple(source.weight.shape) for source in sources]
    if shapes != [tuple(conv.weight.shape) for conv in convolutions]:
        raise ValueError(
            f"{path} is not the FID Inception network: its {len(sources)} convolutions differ "
            f"in number or shape from the {len(convolutions)} of the 2015-12-05 graph"
        )
    for conv, source in zip(convolutions, sources, strict=True):
        assert conv.bias is not None
        # scale (W x - mean) + beta = (scale W) x + (beta - scale mean).
        conv.weight.data.copy_(source.weight * source.scale[:, None, None, None])
        conv.bias.data.copy_(source.beta - source.mean * source.scale)


def load_inception(resolution: int = STANDARD_SIDE) -> Inception:
    """Load the frozen network with the FID weights, fetched if need be.

    Raises:
        ValueError: If the resolution is too small.
        AssetError: If the weights cannot be had.
    """
    network = Inception(resolution)
    load_weights(network, fetch("inception"))
    network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_classifier() -> Tensor | None:
    """Load the last layer (1008, 2048) for the Inception Score; None unless supplied.

    No package that may be fetched holds them: `$GIGATOK_INCEPTION_CLASSIFIER` names a file that
    does, such as `pt_inception-2015-12-05-6726825d.pth`, or any state dict with `fc.weight`.

    Raises:
        ValueError: If the file is missing or holds no such weights.
    """
    given = os.environ.get(CLASSIFIER_VARIABLE)
    if not given:
        return None
    path = Path(given).expanduser()
    if not path.is_file():
        raise ValueError(f"{CLASSIFIER_VARIABLE} is {given}, which is not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make a parser raise whatever it will
        raise ValueError(f"{given} ({CLASSIFIER_VARIABLE}) holds no weights: {error}") from error
    weight = state.get("fc.weight") if isinstance(state, dict) else None
    weight = weight if isinstance(weight, Tensor) else None
    if weight is None or tuple(weight.shape) != (CLASSES, FEATURES):
        found = "none" if weight is None else f"{tuple(weight.shape)}"
        raise ValueError(
            f"{given} ({CLASSIFIER_VARIABLE}) must hold fc.weight of shape "
            f"{(CLASSES, FEATURES)}; found {found}"
        )
    if (problem := flaw(weight)) is not None:
        raise ValueError(f"{given} ({CLASSIFIER_VARIABLE}): fc.weight {problem}; copy it again")
    return torch.as_tensor(weight).float()
