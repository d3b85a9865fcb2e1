"""FLOPs of the networks beside those that are studied: losses, teachers, features of metrics.

As in `gigatok.flops`: of one image's forward pass, in closed form, what torch's counter counts
(a multiply-add of a matrix product, convolution or attention is 2). Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass


def linear(tokens: int, inputs: int, outputs: int) -> int:
    """A matrix product with every token."""
    return 2 * tokens * inputs * outputs


def conv(pixels: int, inputs: int, outputs: int, area: int = 9) -> int:
    """A convolution of so many output pixels, with a kernel of so many."""
    return 2 * pixels * inputs * outputs * area


def attention(queries: int, keys: int, width: int) -> int:
    """Four projections, scores and their sums of values; a causal mask saves nothing."""
    projections = 2 * linear(queries, width, width) + 2 * linear(keys, width, width)
    return projections + 4 * queries * keys * width


def mlp(tokens: int, width: int) -> int:
    """Four times the width and back."""
    return 2 * linear(tokens, width, 4 * width)


@dataclass(frozen=True)
class Discriminator:
    """A judge of images.

    Attributes:
        frozen: of its forward pass, what is never trained.
        trained: the rest.
        first: of the trained layers, those whose input needs no gradient in the judge's own turn.
        scores: of `frozen`, products of two activations, both of which take a gradient.
    """

    frozen: int
    trained: int
    first: int
    scores: int = 0

    @property
    def backward(self) -> int:
        """In the tokenizer's turn: to the image alone."""
        return self.frozen + self.trained + self.scores

    @property
    def judged(self) -> int:
        """In the tokenizer's turn: forward and backward."""
        return self.frozen + self.trained + self.backward

    @property
    def turn(self) -> int:
        """In its own turn, on the image and its reconstruction."""
        return 2 * (self.frozen + 3 * self.trained - self.first)


def discriminator(name: str, image_size: int) -> Discriminator:
    """By the name that `tokenizer.discriminator` takes; `none` costs nothing."""
    if name == "none":
        return Discriminator(0, 0, 0)
    return _patchgan(image_size) if name == "patchgan" else _dino_discriminator()


def _patchgan(side: int) -> Discriminator:
    total, channels, first = 0, 3, 0
    for outputs, stride in ((64, 2), (128, 2), (256, 2), (512, 1), (1, 1)):
        side = (side - 2) // stride + 1
        total += conv(side**2, channels, outputs, 16)
        first, channels = first or total, outputs
    return Discriminator(0, total, first)


def _dino_discriminator() -> Discriminator:
    """DINO ViT-S/16 at 224 pixels, and heads on five of its streams."""
    patches, width = 196, 384
    backbone = vit(patches, width, 12, 16)
    head = [linear(patches, width, width), conv(patches, width, width, 9), 2 * patches * width]
    scores = 12 * 4 * (patches + 1) ** 2 * width
    return Discriminator(backbone, 5 * sum(head), 5 * head[0], scores)


def vit(
    patches: int,
    width: int,
    layers: int,
    patch: int,
    *,
    class_token: bool = True,
    hidden: int | None = None,
) -> int:
    """A vision transformer; its MLPs have four times the width, or `hidden`."""
    tokens = patches + class_token
    inside = 2 * linear(tokens, width, hidden or 4 * width)
    layer = attention(tokens, tokens, width) + inside
    return linear(patches, 3 * patch**2, width) + layers * layer


def lpips(network: str, height: int, width: int) -> int:
    """LPIPS' network on one image; of the heads only the products with channel means count."""
    return _vgg16(height, width) if network == "vgg" else _alexnet(height, width)


def lpips_heads(network: str) -> int:
    """LPIPS' heads on one pair of images."""
    widths = (64, 128, 256, 512, 512) if network == "vgg" else (64, 192, 384, 256, 256)
    return 2 * sum(widths)


def _vgg16(height: int, width: int) -> int:
    total, channels = 0, 3
    for outputs, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            total += conv(height * width, channels, outputs)
            channels = outputs
        height, width = height // 2, width // 2
    return total


def _alexnet(height: int, width: int) -> int:
    sides = [((side + 4 - 11) // 4) + 1 for side in (height, width)]
    total, channels = conv(sides[0] * sides[1], 3, 64, 121), 64
    for outputs, area, pooled in (
        (192, 25, True),
        (384, 9, True),
        (256, 9, False),
        (256, 9, False),
    ):
        if pooled:
            sides = [(side - 3) // 2 + 1 for side in sides]
        total += conv(sides[0] * sides[1], channels, outputs, area)
        channels = outputs
    return total


@dataclass(frozen=True)
class TeacherCost:
    """What a teacher gives and takes.

    Attributes:
        dim: channels of its features.
        grid: side of its feature grid.
        flops: of one image.
    """

    dim: int
    grid: int
    flops: int


def teacher_cost(name: str) -> TeacherCost:
    """By the name that `tokenizer.teacher` takes; `none` gives and takes nothing."""
    return _TEACHERS[name]


def _mobilenetv2(side: int) -> int:
    side //= 2
    total, channels = conv(side**2, 3, 32), 32
    for expansion, width, depth, stride in _INVERTED_RESIDUALS:
        for index in range(depth):
            hidden = channels * expansion
            if expansion > 1:
                total += conv(side**2, channels, hidden, 1)
            side //= 1 if index else stride
            total += conv(side**2, 1, hidden) + conv(side**2, hidden, width, 1)
            channels = width
    return total + conv(side**2, channels, 1280, 1)


_INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, depth and stride of MobileNetV2's stages."""


def _resnet50(side: int) -> int:
    side //= 2
    total, channels = conv(side**2, 3, 64, 49), 64
    side //= 2
    for stride, width, depth in ((1, 64, 3), (2, 128, 4), (2, 256, 6), (2, 512, 3)):
        side //= stride
        total += conv(side**2, channels, 4 * width, 1)  # the shortcut
        for _ in range(depth):
            total += conv(side**2, channels, width, 1) + conv(side**2, width, width)
            total += conv(side**2, width, 4 * width, 1)
            channels = 4 * width
    return total


_TEACHERS = {
    "none": TeacherCost(0, 0, 0),
    "pixels": TeacherCost(12, 4, 0),
    "mobilenetv2": TeacherCost(1280, 4, _mobilenetv2(128)),
    "resnet50": TeacherCost(2048, 4, _resnet50(128)),
    "dinov2": TeacherCost(768, 16, vit(256, 768, 12, 14)),
    "clip_dfn": TeacherCost(1280, 16, vit(256, 1280, 32, 14)),
    "siglip": TeacherCost(1152, 16, vit(256, 1152, 27, 14, class_token=False, hidden=4304)),
}


def features(network: str, resolution: int, image_size: int) -> int:
    """The features of metrics, by the name that `evaluation.network` takes."""
    if network == "pixels":
        return 0
    return _resize(image_size, resolution) + _inception(resolution)


def _resize(image_size: int, side: int) -> int:
    """Products with interpolation matrices, columns first."""
    if image_size == side:
        return 0
    return 3 * (linear(image_size, image_size, side) + linear(side, image_size, side))


def _inception(side: int) -> int:
    """The FID network; the smaller maps are 35, 17 and 8 pixels wide at 299."""
    first = (side - 3) // 2 + 1
    second = first - 2
    third = (second - 3) // 2 + 1
    fourth = third - 2
    large = (fourth - 3) // 2 + 1
    middle = (large - 3) // 2 + 1
    small = (middle - 3) // 2 + 1
    stem = conv(first**2, 3, 32) + conv(second**2, 32, 32) + conv(second**2, 32, 64)
    stem += conv(third**2, 64, 80, 1) + conv(fourth**2, 80, 192)
    large_maps = sum(_mixed_large(large**2, *shape) for shape in ((192, 32), (256, 64), (288, 64)))
    middle_maps = sum(_mixed_middle(middle**2, width) for width in (128, 160, 160, 192))
    small_maps = sum(_mixed_small(small**2, channels) for channels in (1280, 2048))
    to_middle = _chain(large**2, 288, (64, 1), (96, 9))
    to_middle += conv(middle**2, 96, 96) + conv(middle**2, 288, 384)
    to_small = _chain(middle**2, 768, (192, 1)) + conv(small**2, 192, 320)
    to_small += _chain(middle**2, 768, (192, 1), (192, 7), (192, 7)) + conv(small**2, 192, 192)
    return stem + large_maps + to_middle + middle_maps + to_small + small_maps


def _chain(pixels: int, channels: int, *convs: tuple[int, int]) -> int:
    """Convolutions `(channels, kernel area)` in a row."""
    total = 0
    for outputs, area in convs:
        total += conv(pixels, channels, outputs, area)
        channels = outputs
    return total


def _mixed_large(pixels: int, channels: int, pooled: int) -> int:
    towers = [((64, 1),), ((48, 1), (64, 25)), ((64, 1), (96, 9), (96, 9)), ((pooled, 1),)]
    return sum(_chain(pixels, channels, *tower) for tower in towers)


def _mixed_middle(pixels: int, width: int) -> int:
    narrow = (width, 1), (width, 7)
    towers = [((192, 1),), (*narrow, (192, 7)), (*narrow, *[(width, 7)] * 2, (192, 7))]
    return sum(_chain(pixels, 768, *tower) for tower in [*towers, ((192, 1),)])


def _mixed_small(pixels: int, channels: int) -> int:
    forks = 4 * conv(pixels, 384, 384, 3)
    towers = [((320, 1),), ((384, 1),), ((448, 1), (384, 9)), ((192, 1),)]
    return forks + sum(_chain(pixels, channels, *tower) for tower in towers)
