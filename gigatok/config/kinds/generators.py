"""Generator architectures by name: their settings, and what planning has to know of them.

`register` is the door for architectures from outside; LlamaGen's comes through it too. Standard
library and pydantic only: planning reads this.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Annotated, Any, ClassVar, Literal

from pydantic import PositiveInt

from gigatok.config.fields.base import Config, Fraction, TransformerSize
from gigatok.config.fields.marks import COMPUTES
from gigatok.config.fields.open_union import NamedConfig, NetworkKind, add_kind, kind_named
from gigatok.config.kinds.architecture import TokenizerArchitecture
from gigatok.plugins import Registry, registry

OF_SOME = frozenset(
    {"size", "dropout", "ffn_multiple_of", "position", "reference_rope_quirk"}
)  # fmt: skip
"""Fields of a generator that not every architecture reads; all others are read by all."""


class GeneratorSettings(Config):
    """Settings of architectures, above all of the published one.

    They stand among the generator's own keys because the published architecture came first. An
    architecture says which of them it reads (`GeneratorKindConfig.reads`).
    """

    size: Annotated[TransformerSize, COMPUTES]
    """Width, layers and heads of the transformer; published sizes by letter, such as `B`."""
    dropout: Fraction = 0.1
    """Dropout of residual branches, feed-forward outputs and input tokens alike."""
    # The share of labels that training replaces by the null class, which guidance needs.
    class_dropout: Fraction = 0.1
    """Fraction of class labels that training replaces by the null class."""
    # LlamaGen's rule: 8/3 of the width, rounded up to a multiple of this.
    ffn_multiple_of: Annotated[PositiveInt, COMPUTES] = 256
    """Number to a multiple of which the inside of the MLPs is rounded up."""
    position: Annotated[Literal["learned", "rope_2d"], COMPUTES] = "learned"
    """Positions; `rope_2d`: rotations by row and column, for codes of a 2D tokenizer."""
    reference_rope_quirk: Annotated[bool, COMPUTES] = False
    """With `rope_2d`, multiply the class's query and key by 0, as LlamaGen's table does.

    No code can then choose how much it attends to the class. Off: the class is not rotated.
    """


class GeneratorKindConfig(NamedConfig):
    """Settings of one kind of generator; a subclass says what planning has to know of it.

    A subclass narrows `name` to its own and gives it no default.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    """Those of `OF_SOME` that it reads; keys leave out the others, and a size need not be
    given."""

    def probed_layers(self, generator: GeneratorSettings) -> int:
        """Count the layers behind which a linear probe can look."""
        raise NotImplementedError

    def probed_width(self, generator: GeneratorSettings) -> int:
        """Count the channels of the features behind a layer."""
        raise NotImplementedError

    def check(
        self, generator: GeneratorSettings, tokenizer: TokenizerArchitecture, image_size: int
    ) -> None:
        """Raise `ValueError` unless it can hold the tokenizer's codes; name keys in full."""


@dataclass(frozen=True)
class GeneratorKind(NetworkKind[GeneratorKindConfig]):
    """Generator architecture that a trial can name.

    Attributes:
        config: its settings, whose `name` is the value of `generator.architecture.name`.
        module: `package.module:Class` of its `Generator` (`gigatok.models.generator.base`), which
            is imported when a generator is built.
        layout: `package.module:function` without torch, which describes its layers
            (`gigatok.models.generator.layout`); None: its costs are measured.
        example: settings beside `name` with which the contract is checked
            (`gigatok.contracts.generator`): all required ones, for a small network.
    """


GENERATORS: Registry[GeneratorKind] = registry("generator")
"""Every architecture that `generator.architecture` may name."""


def register(kind: GeneratorKind) -> GeneratorKind:
    """Add a generator architecture, and return it.

    Raises:
        ValueError: another one has the name, or its name has a default.
    """
    return add_kind(GENERATORS, kind)


class LlamaGenConfig(GeneratorKindConfig):
    """LlamaGen's transformer, as published; its settings are the generator's own.

    They stand among the generator's keys because this architecture came first.
    """

    name: Literal["llamagen"]
    """Kind of generator."""

    reads: ClassVar[frozenset[str]] = OF_SOME

    def probed_layers(self, generator: GeneratorSettings) -> int:
        """Count the blocks."""
        return generator.size.layers

    def probed_width(self, generator: GeneratorSettings) -> int:
        """Count the channels of the residual stream."""
        return generator.size.width

    def check(
        self, generator: GeneratorSettings, tokenizer: TokenizerArchitecture, image_size: int
    ) -> None:
        """Raise unless rotations by row and column have a square of tokens, a code each."""
        if generator.position != "rope_2d":
            return
        tokens, depth = tokenizer.tokens_per_image(image_size), tokenizer.code_shape.depth
        # Rows and columns must be known; the published 2D models have 16 x 16 tokens.
        if isqrt(tokens) ** 2 != tokens:
            raise ValueError(
                f"generator.position rope_2d needs a square of tokens; the tokenizer has {tokens}"
            )
        if depth > 1:
            # Codes of a token share row and column, so rotations could not tell them apart.
            raise ValueError(
                "generator.position rope_2d needs one code per token; tokenizer.quantizer "
                f"{tokenizer.quantizer.label} makes {depth}: take position learned"
            )


PUBLISHED = LlamaGenConfig(name="llamagen")
"""Architecture of the published generators, and the default."""

register(
    GeneratorKind(
        LlamaGenConfig,
        "gigatok.models.generator.generator:LlamaGen",
        "gigatok.models.generator.layout:llamagen",
    )
)


def reads_of(architecture: Any) -> frozenset[str]:
    """Return the fields that an architecture reads, which may be a mapping still; unknown: all."""
    kind = kind_named(architecture, GENERATORS)
    return OF_SOME if kind is None else kind.config.reads
