"""Layouts of generators, and FLOPs of drawing from them. Imports no torch."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import NamedTuple

from gigatok.config import GeneratorArchitecture
from gigatok.config.kinds.generators import GENERATORS
from gigatok.models.layers import (
    Layer,
    Layers,
    attention,
    flops,
    linear,
    parameters,
    rms_norm,
    table,
    together,
    values,
)

MEASURED = "gigatok.models.generator.measured:layout"
"""Layout of architectures that have none of their own."""


class GeneratorLayout(NamedTuple):
    """Description of a generator."""

    layers: Layers
    """Embedding, one for each layer that can be probed, logits with their loss; or one for all."""
    drawn: int
    """FLOPs of drawing the codes of an image one after the other, with a cache."""


def describe(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> GeneratorLayout:
    """Describe the generator that an architecture names.

    A kind that does not describe itself is measured (`gigatok.models.generator.measured`).
    """
    layout = GENERATORS[config.architecture.name].layout or MEASURED
    described: GeneratorLayout = resolve_name(layout)(
        config, codebook_size, num_classes, num_tokens
    )
    return described


def generator_layout(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> Layers:
    """List the layers of a generator and its loss."""
    return describe(config, codebook_size, num_classes, num_tokens).layers


def ffn_width(width: int, multiple_of: int) -> int:
    """Round 8/3 of the width, the inside of a SwiGLU, up to a multiple."""
    # Two thirds of the usual 4 * width, as a gate adds a third matrix (Shazeer 2020).
    return -(-(8 * width // 3) // multiple_of) * multiple_of


def llamagen(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> GeneratorLayout:
    """Describe `gigatok.models.generator.generator.LlamaGen`: embedding, blocks, logits."""
    d = config.size.width
    row, logits = num_tokens * d, num_tokens * codebook_size
    # Positions of all inputs and one more row, as published; rotations have no parameters.
    positions = num_tokens + 1 if config.position == "learned" else 0
    embedding = together(
        table(codebook_size + num_classes + 1 + positions, d),
        values(row),
        values(row if config.dropout else 0),  # the mask
        scratch=row,
    )
    output = together(
        rms_norm(num_tokens, d),
        # Log-probabilities are kept; the gradients of them and of the logits come together.
        linear(num_tokens, d, codebook_size, bias=False),
        scratch=2 * logits,
    )
    layers = (embedding, *[_block(config, num_tokens)] * config.size.layers, output)
    # Over a whole sequence every query meets every position, as a causal mask saves nothing; drawn
    # one by one it meets only those before it: keys and values, 2 products each.
    later = num_tokens * (num_tokens - 1) // 2
    return GeneratorLayout(layers, flops(layers) - config.size.layers * 4 * d * later)


def _block(config: GeneratorArchitecture, tokens: int) -> Layer:
    d = config.size.width
    hidden = ffn_width(d, config.ffn_multiple_of)
    row, last = tokens * d, linear(tokens, hidden, d, bias=False)
    mask = values(row if config.dropout else 0)
    layers = [
        rms_norm(tokens, d),
        attention(tokens, tokens, d, config.size.heads, bias=False),
        values(2 * row if config.position == "rope_2d" else 0),  # q and k before they are turned
        mask,
        rms_norm(tokens, d),
        linear(tokens, d, hidden, bias=False),  # gate
        linear(tokens, d, hidden, bias=False),  # up
        values(2 * tokens * hidden),  # SiLU of the gate, its product with the other
        last,  # kept is the stream that it is added to
        mask,
    ]
    # Without dropout the last tensor that is kept is the last product's input, so this product
    # is not done again.
    again = flops(layers) - (0 if config.dropout else last.flops)
    return together(
        *layers,
        scratch=row + 2 * tokens * hidden,  # gradients of the stream, of the product, of the gate
        stream=row,
        again=again,
    )


def generator_parameters(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> int:
    """Count the parameters of a generator."""
    return parameters(generator_layout(config, codebook_size, num_classes, num_tokens))


def generator_flops(
    config: GeneratorArchitecture, codebook_size: int, num_tokens: int, layers: int | None = None
) -> int:
    """Count the FLOPs of all tokens of an image, up to the block `layers` if it is given."""
    described = generator_layout(config, codebook_size, 0, num_tokens)
    # The embedding and so many blocks; one that was measured as a whole is run as a whole.
    return flops(described if layers is None else described[: layers + 1])


def sampling_flops(
    config: GeneratorArchitecture, codebook_size: int, num_tokens: int, *, guided: bool
) -> int:
    """Count the FLOPs of drawing an image with a cache; guidance runs a copy without class."""
    return (2 if guided else 1) * describe(config, codebook_size, 0, num_tokens).drawn
