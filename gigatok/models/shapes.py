"""Shapes of fixed networks: one table from which both the module and its layout are made.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from gigatok.models.layers import Layer, Layers, conv, layer_norm, table, values, vit_layer


class Map(NamedTuple):
    """Channels and size of a feature map."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Values in the map."""
        return self.channels * self.height * self.width


class Conv(NamedTuple):
    """A convolution; its fields are the arguments of `torch.nn.Conv2d`, in their order."""

    inputs: int
    outputs: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: int | tuple[int, int] = 0
    dilation: int = 1
    groups: int = 1


class Pool(NamedTuple):
    """The largest value of each window, or its average with the padding left out."""

    kernel: int
    stride: int
    padding: int = 0
    average: bool = False


FixedNetwork: TypeAlias = "Conv | Pool | tuple[FixedNetwork, ...] | Mapping[str, FixedNetwork]"
"""A layer, parts in a row, or named branches whose outputs are concatenated."""


def convolve(shape: Conv, x: Map, *, bias: bool = True) -> tuple[Layer, Map]:
    """Describe a convolution of a map, and the map that it makes."""
    assert shape.inputs == x.channels, f"{shape} on {x}"
    height, width = _pair(shape.kernel)
    y = _slide(x, (height, width), shape.stride, _pair(shape.padding), shape.outputs)
    inputs = shape.inputs // shape.groups
    return conv(y.height * y.width, inputs, shape.outputs, height * width, bias=bias), y


def trace(network: FixedNetwork, x: Map) -> tuple[Layers, Map]:
    """Describe the layers of a network on a map, and the map that it makes."""
    # These are tuples themselves, so they are looked for before parts in a row.
    if isinstance(network, Conv):
        layer, y = convolve(network, x)
        return (layer,), y
    if isinstance(network, Pool):
        y = _slide(x, _pair(network.kernel), network.stride, _pair(network.padding), x.channels)
        # The backward pass needs the place of each maximum, an int64: two float32 values.
        return (values(y.size if network.average else 3 * y.size),), y
    if isinstance(network, Mapping):
        branches = [trace(branch, x) for branch in network.values()]
        maps = [y for _, y in branches]
        joined = maps[0]._replace(channels=sum(y.channels for y in maps))
        return tuple(layer for layers, _ in branches for layer in layers), joined
    found: Layers = ()
    for part in network:
        layers, x = trace(part, x)
        found += layers
    return found, x


def _pair(side: int | tuple[int, int]) -> tuple[int, int]:
    return side if isinstance(side, tuple) else (side, side)


def _slide(
    x: Map, kernel: tuple[int, int], stride: int, padding: tuple[int, int], channels: int
) -> Map:
    """Count the places of a window on a padded map."""
    height, width = (
        # Rounded down, as in torch: a window that sticks out is left out.
        (side + 2 * pad - window) // stride + 1
        for side, window, pad in zip(x[1:], kernel, padding, strict=True)
    )
    return Map(channels, height, width)


class ViT(NamedTuple):
    """A vision transformer on square patches of square images."""

    width: int
    layers: int
    heads: int
    patch: int
    side: int = 224
    hidden: int | None = None
    """Inside of its MLPs; None: four times the width."""
    class_token: bool = True

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.side // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Patches, and the class token where there is one."""
        return self.patches + self.class_token

    def layout(self) -> Layers:
        """Describe its layers: embedding of patches, blocks, final norm."""
        embedding = conv(self.patches, 3, self.width, self.patch**2)
        # The class token has two rows: itself, and its position.
        positions = table(self.tokens + self.class_token, self.width)
        block = vit_layer(self.tokens, self.width, self.heads, self.hidden)
        norm = layer_norm(self.tokens, self.width)
        return embedding, positions, *[block] * self.layers, norm
