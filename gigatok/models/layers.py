"""A small language of layers, in which networks say what they cost. Imports no torch.

Each network has a layout beside its module: its layers in the order of the forward pass.
Parameters and FLOPs are sums over the layout, peak memory is a scan of it
(`gigatok.costs.memory`).

FLOPs are what torch's FLOP counter counts: 2 per multiply-add of a matrix product, a convolution
or attention, the causal half that a kernel may leave out included; everything else is free.
Attention is that of its plain form: fused kernels compute the scores again in the backward pass,
which no utilisation should be credited with. Kept values are what eager autograd keeps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, or a few that take their turn together; all numbers but one are per image.

    Attributes:
        parameters: in all, whatever the number of images.
        flops: of the forward pass; a backward pass takes twice as many.
        kept: float32 values held from the forward to the backward pass.
        scratch: values beside these while its backward pass, or the end of the forward pass, runs:
            in most layers the gradients on both sides of its largest operation.
        stream: of a layer under activation checkpointing, the values of its output: all that is
            kept of it until its turn in the backward pass.
        again: of such a layer, the FLOPs that its recomputation takes.
        matrices: rows and columns of the matrices among its parameters, but for embeddings.
    """

    parameters: int = 0
    flops: int = 0
    kept: int = 0
    scratch: int = 0
    stream: int = 0
    again: int = 0
    matrices: tuple[tuple[int, int], ...] = ()


Layers = tuple[Layer, ...]


def parameters(layers: Iterable[Layer]) -> int:
    """Sum the parameters of layers."""
    return sum(layer.parameters for layer in layers)


def flops(layers: Iterable[Layer]) -> int:
    """Sum the FLOPs of one image's forward pass."""
    return sum(layer.flops for layer in layers)


def together(*layers: Layer, scratch: int = 0, stream: int = 0, again: int = 0) -> Layer:
    """Join layers into one; how they share memory in their backward pass is said by the caller."""
    kept = sum(layer.kept for layer in layers)
    matrices = tuple(shape for layer in layers for shape in layer.matrices)
    return Layer(parameters(layers), flops(layers), kept, scratch, stream, again, matrices)


def values(count: int) -> Layer:
    """Keep so many values: the result of an activation, a sum, a mask."""
    return Layer(kept=count)


def fleeting(layer: Layer) -> Layer:
    """Keep nothing of a layer's output: it is added to another's, which counts the sum."""
    return replace(layer, kept=0)


def table(rows: int, width: int) -> Layer:
    """Look rows up, or add them: positions, embeddings."""
    return Layer(parameters=rows * width)


def linear(tokens: int, inputs: int, outputs: int, *, bias: bool = True) -> Layer:
    """Multiply a matrix with every token."""
    weights = inputs * outputs
    # Two FLOPs per weight and token: a multiplication and an addition.
    return Layer(
        weights + bias * outputs,
        2 * tokens * weights,
        tokens * outputs,
        matrices=((outputs, inputs),),
    )


def conv(pixels: int, inputs: int, outputs: int, area: int = 9, *, bias: bool = True) -> Layer:
    """Convolve to so many output pixels, with a kernel of so many."""
    weights = area * inputs * outputs
    return Layer(weights + bias * outputs, 2 * pixels * weights, pixels * outputs)


def map_norm(pixels: int, channels: int) -> Layer:
    """Normalise a map over groups or the batch, whose few statistics are not counted."""
    return Layer(2 * channels, kept=pixels * channels)


def layer_norm(tokens: int, width: int) -> Layer:
    """Normalise tokens; mean and deviation of each are kept beside the output."""
    return Layer(2 * width, kept=tokens * (width + 2))


def rms_norm(tokens: int, width: int) -> Layer:
    """Normalise tokens by their root mean square; kept are the quotient and the scaled output."""
    return Layer(width, kept=2 * tokens * width)


def attention(queries: int, memory: int, width: int, heads: int, *, bias: bool = True) -> Layer:
    """Attend from queries to a memory of tokens; a causal mask saves nothing."""
    to_query = linear(queries, width, width, bias=bias)
    to_memory = linear(memory, width, width, bias=bias)
    scores = 4 * queries * memory * width  # the products themselves, and their sums of values
    return Layer(
        2 * (to_query.parameters + to_memory.parameters),
        2 * (to_query.flops + to_memory.flops) + scores,
        3 * queries * width  # q, what was attended to, the stream that the output is added to
        + 2 * memory * width  # k and v
        + queries * heads,  # logarithms of the softmax's denominators
        matrices=((3 * width, width), (width, width)),  # q, k and v are one matrix
    )


def mlp(tokens: int, width: int, hidden: int | None = None) -> Layer:
    """Widen to `hidden` (four times the width), activate, and project back to the stream."""
    hidden = hidden or 4 * width
    return together(
        linear(tokens, width, hidden),
        values(tokens * hidden),  # activated
        linear(tokens, hidden, width),
    )


def vit_layer(tokens: int, width: int, heads: int, hidden: int | None = None) -> Layer:
    """Attend to itself and apply an MLP, each behind a norm: the layer of a vision transformer."""
    return transformer_layer(
        layer_norm(tokens, width),
        attention(tokens, tokens, width, heads),
        layer_norm(tokens, width),
        mlp(tokens, width, hidden),
        last=linear(tokens, hidden or 4 * width, width),
    )


def transformer_layer(*layers: Layer, last: Layer) -> Layer:
    """Join the layers of a transformer's layer, the last of which is also given alone.

    Its recomputation stops at the last tensor that is kept, which is the last product's input.
    """
    row = last.kept
    return together(
        *layers,
        scratch=9 * row,  # gradients in the MLP: hidden values (4), activated ones (4), stream (1)
        stream=row,
        again=flops(layers) - last.flops,
    )
