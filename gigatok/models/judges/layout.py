"""Shapes of the discriminators and what their turns cost. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigatok.models.layers import (
    Layer,
    Layers,
    conv,
    fleeting,
    flops,
    linear,
    map_norm,
    parameters,
    together,
    values,
)
from gigatok.models.shapes import Conv, Map, ViT, convolve

PATCHGAN = (
    Conv(3, 64, 4, 2, 1),
    Conv(64, 128, 4, 2, 1),
    Conv(128, 256, 4, 2, 1),
    Conv(256, 512, 4, 1, 1),
    Conv(512, 1, 4, 1, 1),
)
"""Convolutions of pix2pix' discriminator; all but the ends have a batch norm and no bias."""
DINO = ViT(width=384, layers=12, heads=6, patch=16, side=224)
READOUTS = (2, 5, 8, 11)
"""Blocks of DINO, from 0, whose outputs are judged, beside the input of the first."""
HEAD_KERNELS = (1, 9)
"""Kernels of the convolutions in a head on DINO's features, before the last."""


@dataclass(frozen=True)
class JudgeLayout:
    """Discriminator on one image.

    Attributes:
        frozen: layers that are never trained.
        trained: the rest.
        first: FLOPs of the trained layers whose input needs no gradient in the judge's own turn.
        scratch: values beside those that are kept while its backward pass runs.
        scores: FLOPs of `frozen` that are products of two activations, both of which take a
            gradient.
        workspace: values of memory that its convolutions take whatever the batch.
    """

    frozen: Layers = ()
    trained: Layers = ()
    first: int = 0
    scratch: int = 0
    scores: int = 0
    workspace: int = 0

    @property
    def forward(self) -> int:
        """FLOPs of judging an image."""
        return flops(self.frozen + self.trained)

    @property
    def backward(self) -> int:
        """FLOPs of the backward pass in the tokenizer's turn, to the image alone."""
        return self.forward + self.scores

    @property
    def turn(self) -> int:
        """FLOPs of its own turn, on the image and its reconstruction."""
        # Per image: frozen layers forward (1); trained layers forward (1) and backward (2), less
        # the gradient of the first layers' input.
        return 2 * (flops(self.frozen) + 3 * flops(self.trained) - self.first)

    @property
    def parameters(self) -> int:
        """Trained parameters."""
        return parameters(self.trained)

    @property
    def watched(self) -> Layer:
        """Layer that stands for all of it in the tokenizer's turn, which trains none of it."""
        kept = together(*self.frozen, *self.trained).kept
        return Layer(kept=kept, scratch=self.scratch)


def judge_layout(name: str, image_size: int) -> JudgeLayout:
    """Describe a discriminator by the name that `tokenizer.discriminator` takes."""
    if name == "none":
        return JudgeLayout()
    return _patchgan(image_size) if name == "patchgan" else _dino()


def _patchgan(side: int) -> JudgeLayout:
    layers, x, largest = [], Map(3, side, side), 0
    for shape in PATCHGAN:
        normed = shape not in (PATCHGAN[0], PATCHGAN[-1])
        layer, x = convolve(shape, x, bias=not normed)
        norm = [map_norm(x.height * x.width, x.channels)] if normed else []
        layers.append(together(layer, *norm, values(x.size)))  # LeakyReLU; at the end the loss
        largest = max(largest, x.size)
    return JudgeLayout(
        trained=tuple(layers),
        first=layers[0].flops,
        scratch=2 * largest,
        # A convolution of channels-last images lays its kernel out anew, twice over; measured.
        workspace=2 * max(16 * shape.inputs * shape.outputs for shape in PATCHGAN),
    )


def _dino() -> JudgeLayout:
    """Describe DINO and the heads on its streams, whatever the size of the images."""
    d, patches, tokens = DINO.width, DINO.patches, DINO.tokens
    blocks = [
        # Kept are the convolution's output and what the norm in float32 makes of it.
        together(conv(patches, d, d, kernel), Layer(parameters=2 * d), values(5 * patches * d))
        for kernel in HEAD_KERNELS
    ]
    # What comes in is a stream's patches plus its class token.
    head = together(values(patches * d), *blocks, fleeting(linear(patches, d, 1)))
    heads = 1 + len(READOUTS)
    *backbone, norm = DINO.layout()
    return JudgeLayout(
        frozen=(*backbone, fleeting(norm)),  # the final norm is there, but not run
        trained=(head,) * heads,
        first=heads * blocks[0].flops,
        scratch=9 * tokens * d,
        scores=DINO.layers * 4 * tokens**2 * d,
    )
