"""Shapes of the frozen networks, and what they cost: teachers, LPIPS, the Inception network.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from gigatok.config.kinds.teachers import TeacherCost
from gigatok.models.layers import Layer, Layers, flops, linear, parameters, together, values
from gigatok.models.shapes import Conv, FixedNetwork, Map, Pool, ViT, trace


def _mobilenetv2_blocks() -> Iterator[tuple[Conv, ...]]:
    """Make the stem, the inverted residuals and the last convolution (Sandler et al. 2018)."""
    yield (Conv(3, 32, 3, 2, 1),)
    channels = 32
    # Rows (t, c, n, s) of Table 2 in Sandler et al. 2018.
    for expansion, width, depth, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for index in range(depth):
            hidden = channels * expansion
            expand = (Conv(channels, hidden, 1),) if expansion > 1 else ()
            # Each channel by itself; the first block of a stage shrinks the map.
            depthwise = Conv(hidden, hidden, 3, 1 if index else stride, 1, groups=hidden)
            yield *expand, depthwise, Conv(hidden, width, 1)
            channels = width
    yield (Conv(channels, 1280, 1),)


MOBILENETV2 = tuple(_mobilenetv2_blocks())
"""Convolutions by block."""


class Bottleneck(NamedTuple):
    """Block of ResNet v1: three convolutions, and one in the shortcut where shapes change."""

    inside: tuple[Conv, Conv, Conv]
    shortcut: Conv | None


def _resnet50_blocks() -> Iterator[tuple[str, Bottleneck]]:
    """Make the blocks by Keras' names, whose stride is on the first 1x1 convolution."""
    channels = 64
    # conv2_x to conv5_x of Table 1 in He et al. 2015: stage, width, blocks.
    for stage, width, depth in ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3)):
        for letter in "abcdef"[:depth]:
            first = letter == "a"
            stride = 2 if stage > 2 and first else 1
            shrink, spread = Conv(channels, width, 1, stride), Conv(width, width, 3, 1, 1)
            shortcut = Conv(channels, 4 * width, 1, stride) if first else None
            block = Bottleneck((shrink, spread, Conv(width, 4 * width, 1)), shortcut)
            yield f"{stage}{letter}", block
            channels = 4 * width


RESNET50_STEM, RESNET50_POOL = Conv(3, 64, 7, 2, 3), Pool(3, 2, 1)
RESNET50 = dict(_resnet50_blocks())
"""Blocks by name, behind the stem and a pooling (He et al. 2015)."""


def _mobilenetv2(side: int) -> TeacherCost:
    layers, features = trace(MOBILENETV2, Map(3, side, side))
    return _folded(layers, features, side)


def _resnet50(side: int) -> TeacherCost:
    layers, x = trace((RESNET50_STEM, RESNET50_POOL), Map(3, side, side))
    for block in RESNET50.values():
        shortcut = () if block.shortcut is None else trace(block.shortcut, x)[0]
        inside, x = trace(block.inside, x)
        layers += shortcut + inside
    return _folded(layers, x, side)


def _folded(layers: Layers, features: Map, side: int) -> TeacherCost:
    """Sum over a network whose batch norms are folded into its convolutions."""
    grid = features.height
    return TeacherCost(features.channels, grid, side, flops(layers), parameters(layers))


def _published(shape: ViT, parameters: int) -> TeacherCost:
    """Sum over a transformer from the hub; parameters are those of its file, tables included."""
    grid = shape.side // shape.patch
    return TeacherCost(shape.width, grid, shape.side, flops(shape.layout()), parameters)


# At 128 pixels a map of 1/32 of the side has 4 x 4 cells.
MOBILENETV2_COST, RESNET50_COST = _mobilenetv2(128), _resnet50(128)
DINOV2_COST = _published(ViT(768, 12, 12, 14), 86_580_480)  # ViT-B/14
CLIP_DFN_COST = _published(ViT(1280, 32, 16, 14), 630_766_080)  # ViT-H/14
# SoViT-400m/14, whose MLP is not 4 times as wide.
SIGLIP_COST = _published(ViT(1152, 27, 16, 14, hidden=4304, class_token=False), 427_680_704)
# 2 x 2 pixels of 3 colours in each of 4 x 4 cells.
PIXELS_COST = TeacherCost(dim=12, grid=4, side=8)


LPIPSStage = tuple[Conv | Pool, ...]
"""Layers up to and including the next map that is compared; a ReLU follows each convolution."""


def _vgg16() -> Iterator[LPIPSStage]:
    channels = 3
    # Width and number of convolutions of VGG16's stages; maps are read behind relu1_2 ... relu5_3.
    for index, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        pool = (Pool(2, 2),) if index else ()
        widths = [channels, *[width] * depth]
        yield *pool, *(Conv(i, o, 3, 1, 1) for i, o in pairwise(widths))
        channels = width


LPIPS_STAGES: dict[str, tuple[LPIPSStage, ...]] = {
    "vgg": tuple(_vgg16()),
    # AlexNet with one tower (Krizhevsky 2014); maps are read behind each of its five ReLUs.
    "alex": (
        (Conv(3, 64, 11, 4, 2),),
        (Pool(3, 2), Conv(64, 192, 5, 1, 2)),
        (Pool(3, 2), Conv(192, 384, 3, 1, 1)),
        (Conv(384, 256, 3, 1, 1),),
        (Conv(256, 256, 3, 1, 1),),
    ),
}
"""Stages by the name that `tokenizer.perceptual_network` takes."""


def lpips_layer(network: str, height: int, width: int) -> Layer:
    """Describe LPIPS' network on one image, and the comparison of its maps with another's."""
    x, compared, found = Map(3, height, width), 0, list[Layer]()
    for stage in LPIPS_STAGES[network]:
        layers, x = trace(stage, x)
        found += layers
        compared += x.size
    return together(
        values(2 * 3 * height * width),  # the image shifted, and scaled
        *found,
        values(compared),  # differences to the other image's maps
        # At the end of the forward pass the compared maps of both images are there as well.
        scratch=2 * compared,
    )


def lpips_head_flops(network: str) -> int:
    """Count the FLOPs of the heads on a pair of images: products with channel means."""
    lasts = [stage[-1] for stage in LPIPS_STAGES[network]]
    return 2 * sum(last.outputs for last in lasts if isinstance(last, Conv))


_AVERAGE = Pool(3, 1, 1, average=True)


def _tower(channels: int, *convs: tuple[int, int | tuple[int, int]]) -> tuple[Conv, ...]:
    """Chain convolutions `(channels_out, kernel)` that keep the size of the map."""
    found = []
    for width, kernel in convs:
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
        found.append(Conv(channels, width, kernel, 1, padding))
        channels = width
    return tuple(found)


def _mixed_35(channels: int, pool_width: int) -> FixedNetwork:
    """Make a block on the 35 x 35 map."""
    return {
        "conv": Conv(channels, 64, 1),
        "tower": _tower(channels, (48, 1), (64, 5)),
        "tower_1": _tower(channels, (64, 1), (96, 3), (96, 3)),
        "tower_2": (_AVERAGE, Conv(channels, pool_width, 1)),
    }


def _to_17(channels: int) -> FixedNetwork:
    """Make the block from 35 x 35 to 17 x 17."""
    return {
        "conv": Conv(channels, 384, 3, 2),
        "tower": (*_tower(channels, (64, 1), (96, 3)), Conv(96, 96, 3, 2)),
        "pool": Pool(3, 2),
    }


def _mixed_17(channels: int, width: int) -> FixedNetwork:
    """Make a block on the 17 x 17 map, 7 x 7 kernels factored into rows and columns."""
    row, column = (1, 7), (7, 1)
    back_and_forth = (width, column), (width, row), (width, column)
    return {
        "conv": Conv(channels, 192, 1),
        "tower": _tower(channels, (width, 1), (width, row), (192, column)),
        "tower_1": _tower(channels, (width, 1), *back_and_forth, (192, row)),
        "tower_2": (_AVERAGE, Conv(channels, 192, 1)),
    }


def _to_8(channels: int) -> FixedNetwork:
    """Make the block from 17 x 17 to 8 x 8."""
    rows_and_columns = _tower(channels, (192, 1), (192, (1, 7)), (192, (7, 1)))
    return {
        "tower": (Conv(channels, 192, 1), Conv(192, 320, 3, 2)),
        "tower_1": (*rows_and_columns, Conv(192, 192, 3, 2)),
        "pool": Pool(3, 2),
    }


def _mixed_8(channels: int, pool: Pool) -> FixedNetwork:
    """Make a block on the 8 x 8 map, whose towers fork."""
    fork: FixedNetwork = {
        "conv": Conv(384, 384, (1, 3), 1, (0, 1)),
        "conv_1": Conv(384, 384, (3, 1), 1, (1, 0)),
    }
    return {
        "conv": Conv(channels, 320, 1),
        "tower": (Conv(channels, 384, 1), fork),
        "tower_1": (*_tower(channels, (448, 1), (384, 3)), fork),
        "tower_2": (pool, Conv(channels, 192, 1)),
    }


INCEPTION: dict[str, FixedNetwork] = {
    "conv": Conv(3, 32, 3, 2),
    "conv_1": Conv(32, 32, 3),
    "conv_2": Conv(32, 64, 3, 1, 1),
    "pool0": Pool(3, 2),
    "conv_3": Conv(64, 80, 1),
    "conv_4": Conv(80, 192, 3),
    "pool1": Pool(3, 2),
    "mixed": _mixed_35(192, 32),
    "mixed_1": _mixed_35(256, 64),
    "mixed_2": _mixed_35(288, 64),
    "mixed_3": _to_17(288),
    "mixed_4": _mixed_17(768, 128),
    "mixed_5": _mixed_17(768, 160),
    "mixed_6": _mixed_17(768, 160),
    "mixed_7": _mixed_17(768, 192),
    "mixed_8": _to_8(768),
    # The TensorFlow graph pools by average in the first and by maximum in the second.
    "mixed_9": _mixed_8(1280, _AVERAGE),
    "mixed_10": _mixed_8(2048, Pool(3, 1, 1)),
}
"""Its layers in a row."""


def feature_flops(network: str, resolution: int, image_size: int) -> int:
    """Count the FLOPs of an image's features, by the name that `evaluation.network` takes."""
    if network == "pixels":
        return 0
    layers, _ = trace(tuple(INCEPTION.values()), Map(3, resolution, resolution))
    if image_size == resolution:
        return flops(layers)
    # Each colour is multiplied with matrices of interpolation: columns first, then rows.
    columns = linear(image_size, image_size, resolution)
    rows = linear(resolution, image_size, resolution)
    return 3 * flops((columns, rows)) + flops(layers)
