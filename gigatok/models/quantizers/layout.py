"""Layouts of the quantizers: what they cost, described or traced. Imports no torch."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import NamedTuple

from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.quantizers import QUANTIZERS
from gigatok.models.layers import Layer, Layers
from gigatok.models.traced import Input, Subject, traced


class QuantizerLayout(NamedTuple):
    """Layers of a quantizer."""

    codebook: Layers
    """The search for codes, without gradients, and the parameters."""
    losses: Layers = ()
    """Products that only training adds, with gradients."""


def quantizer_layout(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Describe the quantizer that an architecture names, for so many tokens per image.

    Raises:
        TraceError: it has no layout, and cannot be traced.
    """
    kind = QUANTIZERS[config.quantizer.name]
    if kind.layout is None:
        return traced_layout(config, tokens)
    layout: QuantizerLayout = resolve_name(kind.layout)(config, tokens)
    return layout


def traced_layout(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Measure a quantizer: the search alone, and a whole step of training.

    Raises:
        TraceError: it cannot be traced.
    """
    # Without the settings of training, in which trials may differ.
    names = TokenizerArchitecture.model_fields
    bare = TokenizerArchitecture(**{name: getattr(config, name) for name in names})
    build = QUANTIZERS[config.quantizer.name].module
    z_TC = (Input((tokens, config.code_shape.dim), gradient=True),)
    search = traced(Subject(build, z_TC, (bare,), call="nearest"))
    step = traced(Subject(build, z_TC, (bare,), training=True))
    codebook = Layer(step.parameters, search.flops, step.kept, scratch=search.largest)
    # What has gradients is counted three times: once forward, twice backward.
    trained = (step.flops - search.flops + step.backward) // 3
    losses = Layer(flops=trained, scratch=2 * step.largest)
    return QuantizerLayout((codebook,), (losses,) if trained else ())


def vq(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Describe `VectorQuantizer`."""
    codes, dim, _ = config.code_shape
    logits = tokens * codes
    codebook = Layer(
        parameters=codes * dim,
        flops=2 * logits * dim,
        # Latents and codes at unit length, and what the losses and the rotation trick keep of
        # them: an upper bound, of little weight beside all else.
        kept=11 * tokens * dim,
        scratch=logits,  # the cosines
    )
    entropy = Layer(
        flops=2 * logits * dim,
        kept=2 * logits,  # log p and p
        scratch=3 * logits,  # the gradients of both and of the logits
    )
    return QuantizerLayout((codebook,), (entropy,) if config.entropy_weight > 0 else ())


def fsq(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Describe `FiniteScalarQuantizer`, which has no products and no parameters."""
    # The tanh and the bounded values.
    return QuantizerLayout((Layer(kept=2 * tokens * config.code_shape.dim),))


def binary(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Describe `BinaryQuantizer`, which has no products and no parameters."""
    # Latents, at unit length too, and their corners (3); logits, odds and softplus (3).
    return QuantizerLayout((Layer(kept=6 * tokens * config.code_shape.dim),))


def rvq(config: TokenizerArchitecture, tokens: int) -> QuantizerLayout:
    """Describe `ResidualQuantizer`."""
    codes, dim, depth = config.code_shape
    logits = tokens * codes
    codebooks = Layer(
        parameters=depth * codes * dim,
        flops=2 * depth * logits * dim,
        # Of each depth: what is left, its rows, their sum, and both differences of the losses.
        kept=5 * depth * tokens * dim,
        scratch=2 * logits,  # the products, and the distances of one depth
    )
    return QuantizerLayout((codebooks,))
