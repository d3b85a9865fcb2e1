"""The Inception network of FID (TensorFlow graph of 2015-12-05) as plain convolutions.

The weights come from a TorchScript of that graph; batch norm is folded into the convolutions
and memory is channels-last, which is what makes it fast on a CPU.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gigatok.data.assets import fetch
from gigatok.files.foreign_weights import flaw

FEATURES = 2048
STANDARD_SIDE = 299
"""The side at which FID is defined."""
MIN_SIDE = 75
"""Below this the map in front of the last stride-2 block is empty."""
SPATIAL_LAYER, SPATIAL_CHANNELS = "mixed_6", 7
"""Where sFID reads (Nash 2021): ADM's `mixed_6/conv`, whose channels come first in the block."""
CLASSIFIER_VARIABLE = "GIGATOK_INCEPTION_CLASSIFIER"
CLASSES = 1008
_BN_EPS = 1e-3

Side = int | tuple[int, int]


class _Conv(nn.Sequential):
    """Convolution with the folded batch norm as its bias, then ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: Side,
        stride: int = 1,
        padded: bool = True,
    ) -> None:
        """Keeps the size of the map unless strided or not `padded`."""
        k_h, k_w = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (k_h // 2, k_w // 2) if padded and stride == 1 else (0, 0)
        conv = nn.Conv2d(channels_in, channels_out, (k_h, k_w), stride, padding)
        super().__init__(conv, nn.ReLU(inplace=True))


class _Concat(nn.Module):
    """Runs its children side by side and concatenates their channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of branch channels, H', W')."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def _tower(channels: int, *convs: tuple[int, Side], last_stride: int = 1) -> nn.Sequential:
    """A chain of convolutions `(channels_out, kernel)`; only the last may be strided."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (width, kernel) in enumerate(convs):
        stride = last_stride if i == len(convs) - 1 else 1
        layers["conv" if i == 0 else f"conv_{i}"] = _Conv(channels, width, kernel, stride)
        channels = width
    return nn.Sequential(layers)


def _average_tower(channels: int, width: int) -> nn.Sequential:
    """A 3x3 average that leaves the padding out of its counts, then a 1x1 convolution."""
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.Sequential(OrderedDict(pool=pool, conv=_Conv(channels, width, 1)))


def _mixed_35(channels: int, pool_width: int) -> nn.Module:
    """Blocks on the 35 x 35 map."""
    return _Concat(
        conv=_Conv(channels, 64, 1),
        tower=_tower(channels, (48, 1), (64, 5)),
        tower_1=_tower(channels, (64, 1), (96, 3), (96, 3)),
        tower_2=_average_tower(channels, pool_width),
    )


def _to_17(channels: int) -> nn.Module:
    """35 x 35 to 17 x 17."""
    return _Concat(
        conv=_Conv(channels, 384, 3, 2),
        tower=_tower(channels, (64, 1), (96, 3), (96, 3), last_stride=2),
        pool=nn.MaxPool2d(3, 2),
    )


def _mixed_17(channels: int, width: int) -> nn.Module:
    """Blocks on the 17 x 17 map, 7 x 7 kernels factored into rows and columns."""
    row, column = (1, 7), (7, 1)
    back_and_forth = (width, column), (width, row), (width, column)
    return _Concat(
        conv=_Conv(channels, 192, 1),
        tower=_tower(channels, (width, 1), (width, row), (192, column)),
        tower_1=_tower(channels, (width, 1), *back_and_forth, (192, row)),
        tower_2=_average_tower(channels, 192),
    )


def _to_8(channels: int) -> nn.Module:
    """17 x 17 to 8 x 8."""
    return _Concat(
        tower=_tower(channels, (192, 1), (320, 3), last_stride=2),
        tower_1=_tower(channels, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), last_stride=2),
        pool=nn.MaxPool2d(3, 2),
    )


class _Mixed8(nn.Module):
    """Blocks on the 8 x 8 map, whose towers fork.

    The TensorFlow graph pools by average in the first and by maximum in the second.
    """

    def __init__(self, channels: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = _Conv(channels, 320, 1)
        self.tower_conv = _Conv(channels, 384, 1)
        self.tower_mixed_conv = _Conv(384, 384, (1, 3))
        self.tower_mixed_conv_1 = _Conv(384, 384, (3, 1))
        self.tower_1_conv = _Conv(channels, 448, 1)
        self.tower_1_conv_1 = _Conv(448, 384, 3)
        self.tower_1_mixed_conv = _Conv(384, 384, (1, 3))
        self.tower_1_mixed_conv_1 = _Conv(384, 384, (3, 1))
        self.tower_2_pool = pool
        self.tower_2_conv = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2048, H, W)."""
        a = self.tower_conv(x)
        b = self.tower_1_conv_1(self.tower_1_conv(x))
        branches = [
            self.conv(x),
            self.tower_mixed_conv(a),
            self.tower_mixed_conv_1(a),
            self.tower_1_mixed_conv(b),
            self.tower_1_mixed_conv_1(b),
            self.tower_2_conv(self.tower_2_pool(x)),
        ]
        return torch.cat(branches, dim=1)


def _layers() -> nn.Sequential:
    """The network under the names that the TorchScript gives its layers."""
    layers: dict[str, nn.Module] = {
        "conv": _Conv(3, 32, 3, 2),
        "conv_1": _Conv(32, 32, 3, padded=False),
        "conv_2": _Conv(32, 64, 3),
        "pool0": nn.MaxPool2d(3, 2),
        "conv_3": _Conv(64, 80, 1),
        "conv_4": _Conv(80, 192, 3, padded=False),
        "pool1": nn.MaxPool2d(3, 2),
        "mixed": _mixed_35(192, 32),
        "mixed_1": _mixed_35(256, 64),
        "mixed_2": _mixed_35(288, 64),
        "mixed_3": _to_17(288),
        "mixed_4": _mixed_17(768, 128),
        "mixed_5": _mixed_17(768, 160),
        "mixed_6": _mixed_17(768, 160),
        "mixed_7": _mixed_17(768, 192),
        "mixed_8": _to_8(768),
        "mixed_9": _Mixed8(1280, nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        "mixed_10": _Mixed8(2048, nn.MaxPool2d(3, 1, 1)),
    }
    return nn.Sequential(OrderedDict(layers))


class Activations(NamedTuple):
    """What metrics read of the network for a batch.

    Attributes:
        pool: the last map averaged, (B, 2048): FID, KID, precision and recall.
        spatial: the first 7 channels of `mixed_6` flattened, (B, 7 * 17 * 17) at 299: sFID.
    """

    pool: Tensor
    spatial: Tensor


class Inception(nn.Module):
    """FID features of images.

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
        self.layers = _layers()

    def forward(self, images: Tensor) -> Activations:
        """Features of RGB images (B, 3, H, W) with values in [0, 255], of any dtype."""
        x = resize_like_tensorflow(images.float(), self.resolution)
        x = ((x - 128) / 128).contiguous(memory_format=torch.channels_last)
        spatial: Tensor | None = None
        for name, layer in self.layers.named_children():
            x = layer(x)
            if name == SPATIAL_LAYER:
                spatial = x[:, :SPATIAL_CHANNELS].flatten(1)
        assert spatial is not None
        return Activations(x.mean(dim=(2, 3)), spatial)


def resize_like_tensorflow(images: Tensor, side: int) -> Tensor:
    """Bilinear resize of (B, C, H, W) as TensorFlow 1 did: no half-pixel centres, no antialias.

    Output pixel i reads position i * input / output, so the image shifts by up to half a pixel
    against `F.interpolate`. The FID graph does this, and published numbers include it.
    """
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    rows = _interpolation_matrix(height, side).to(images)
    columns = _interpolation_matrix(width, side).to(images)
    return rows @ (images @ columns.T)


def _interpolation_matrix(size_in: int, size_out: int) -> Tensor:
    """The (size_out, size_in) matrix of a one-dimensional linear resize."""
    position = torch.arange(size_out, dtype=torch.float64) * (size_in / size_out)
    low = position.long()
    high = (low + 1).clamp(max=size_in - 1)
    weight = position - low
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    row = torch.arange(size_out)
    matrix[row, low] += 1 - weight
    matrix[row, high] += weight
    return matrix


class _Affine(NamedTuple):
    """One convolution of a weight file with its batch norm."""

    weight: Tensor
    scale: Tensor
    """gamma / sqrt(variance + eps), per output channel."""
    mean: Tensor
    beta: Tensor


def _read_torchscript(path: Path) -> list[_Affine]:
    """The convolutions of the TorchScript; its batch norm has no gamma."""
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
    """The convolutions of `pt_inception-2015-12-05-*.pth`, the file of pytorch-fid."""
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
        conv.weight.data.copy_(source.weight * source.scale[:, None, None, None])
        conv.bias.data.copy_(source.beta - source.mean * source.scale)


def load_inception(resolution: int = STANDARD_SIDE) -> Inception:
    """The frozen network with the FID weights, fetched if need be.

    Raises:
        ValueError: If the resolution is too small.
        AssetError: If the weights cannot be had.
    """
    network = Inception(resolution)
    load_weights(network, fetch("inception"))
    network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_classifier() -> Tensor | None:
    """Weights (1008, 2048) of the last layer, for the Inception Score; None unless supplied.

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
