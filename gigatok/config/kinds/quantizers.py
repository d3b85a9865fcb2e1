"""Quantizers by name: their settings, and how many codes of which size they make of an image.

`register` is the door for quantizers from outside; the five at the end of this file come through
it too. Standard library and pydantic only: planning reads this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gigatok.config.fields.base import Config
from gigatok.config.fields.marks import COMPUTES, SAME_COST, TRAINING_ONLY
from gigatok.config.fields.open_union import NamedConfig, NetworkKind, add_kind
from gigatok.plugins import Registry, registry


class CodeShape(NamedTuple):
    """Codes that a quantizer makes of one token."""

    vocabulary: int
    """Values that a code can have."""
    dim: int
    """Channels of the vector that the codes of a token stand for."""
    depth: int = 1
    """Codes of a token; each has a codebook of its own, all of the same size."""

    @property
    def entries(self) -> int:
        """Count the entries of all codebooks."""
        return self.vocabulary * self.depth


class CodebookConfig(Config):
    """Settings of learned codebooks, above all the published one.

    They stand among the tokenizer's own keys because the published quantizer came first. A
    quantizer says which of them it reads (`QuantizerConfig.reads`).
    """

    # 16384 codes of 8 channels in all published configs.
    codebook_size: Annotated[PositiveInt, COMPUTES] = 16384
    """Number of codes of a learned codebook; read by quantizers `vq` and `rvq`."""
    codebook_dim: Annotated[PositiveInt, COMPUTES] = 8
    """Channels of a code; read by quantizers `vq` and `rvq`."""
    # On in all released models; only the recipe `VQ_BL256_train_new` has it off.
    rotation_trick: bool = True
    """Pass gradients through quantizer `vq` by rotation (Fifty et al., 2024)."""
    # The beta of VQ-VAE (van den Oord et al. 2017).
    commitment_weight: NonNegativeFloat = 0.25
    """Weight of the loss that draws latents to their codes, of quantizers `vq` and `rvq`."""
    # 0.005 in the published configs that have this loss, such as `VQ_XLXXL256`.
    entropy_weight: NonNegativeFloat = 0.0
    """Weight of the entropy loss of quantizer `vq`; 0 turns it off."""
    entropy_temperature: Annotated[PositiveFloat, SAME_COST] = 0.01
    """Temperature of the softmax over codes in the entropy loss of quantizer `vq`."""
    codebook_init: Literal["uniform", "data"] = "uniform"
    """Start; `data`: latents are whitened and codebooks drawn from them before the first step."""
    dead_code_restart_every: NonNegativeInt = 0
    """Steps between restarts of unused codes of `vq` and `rvq`; 0 (published): no restarts."""
    # The size of the reference's buffer `codebook_used`.
    usage_window: Annotated[PositiveInt, TRAINING_ONLY] = 65536
    """Length of the buffer of recent codes from which training usage is computed."""


COMMON = frozenset({"codebook_init", "usage_window"})
"""Fields of `CodebookConfig` that mean something for every quantizer."""


class QuantizerConfig(NamedConfig):
    """Settings of one kind of quantizer; a subclass says what it makes of them.

    A subclass narrows `name` to its own and gives it no default.
    """

    reads: ClassVar[frozenset[str]] = COMMON
    """Fields of `CodebookConfig` that it reads; keys leave out the others."""

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        """Say how many codes of which size and dimension it makes of a token."""
        raise NotImplementedError

    def losses(self, codebook: CodebookConfig) -> tuple[str, ...]:
        """Name the loss terms that it adds in training."""
        return ()

    def batch_loss(self, codebook: CodebookConfig) -> str | None:
        """Name the setting whose loss needs the whole batch at once; None: there is none."""
        return None


@dataclass(frozen=True)
class QuantizerKind(NetworkKind[QuantizerConfig]):
    """Quantizer that a trial can name.

    Attributes:
        config: its settings, whose `name` is the value of `tokenizer.quantizer.name`.
        module: `package.module:Class` of its `Quantizer` (`gigatok.models.quantizers.base`), which
            is imported when a tokenizer is built.
        layout: `package.module:function` without torch, which describes its layers
            (`gigatok.models.quantizers.layout`); None: they are traced.
        example: settings beside `name` with which the contract is checked
            (`gigatok.contracts.quantizer`): all required ones, for few codes.
    """


QUANTIZERS: Registry[QuantizerKind] = registry("quantizer")
"""Every quantizer that `tokenizer.quantizer` may name."""


def register(kind: QuantizerKind) -> QuantizerKind:
    """Add a quantizer, and return it.

    Raises:
        ValueError: another quantizer has the name, or its name has a default.
    """
    return add_kind(QUANTIZERS, kind)


class VectorConfig(QuantizerConfig):
    """Learned codebook searched by cosine, as published; its settings are the tokenizer's."""

    name: Literal["vq"]
    """Kind of quantizer."""

    reads: ClassVar[frozenset[str]] = frozenset(CodebookConfig.model_fields)

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        """Take size and dimension from the tokenizer's settings."""
        return CodeShape(codebook.codebook_size, codebook.codebook_dim)

    def losses(self, codebook: CodebookConfig) -> tuple[str, ...]:
        """Name the loss terms."""
        return "vq", "commitment", *(("entropy",) if codebook.entropy_weight > 0 else ())

    def batch_loss(self, codebook: CodebookConfig) -> str | None:
        """Name the entropy loss, where it is on."""
        return "entropy_weight > 0" if codebook.entropy_weight > 0 else None


class FiniteScalarConfig(QuantizerConfig):
    """Finite scalar quantization: rounds each channel to a few levels (arXiv 2309.15505)."""

    name: Literal["fsq"]
    """Kind of quantizer."""
    # The paper's Table 1 recommends [8, 6, 5] for about 2^8 codes, [8, 5, 5, 5] for 2^10.
    levels: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    """Levels of each channel, of which there are as many; the codes are their product."""

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        """Count the combinations of levels."""
        return CodeShape(math.prod(self.levels), len(self.levels))


class BinaryConfig(QuantizerConfig):
    """Settings of quantizers whose code is the signs of the channels, without a codebook."""

    # Codes are counted in int64, and tables of them are made: 30 bits is far beyond use.
    bits: Annotated[int, Field(ge=1, le=30)]
    """Channels, each of which gives one bit of the code."""
    commitment_weight: NonNegativeFloat = 0.25
    """Weight of the loss that draws latents to their codes."""
    entropy_weight: NonNegativeFloat = 0.1
    """Weight of the entropy penalty; 0 turns it off."""
    entropy_temperature: PositiveFloat = 0.01
    """Temperature of the softmax over codes in the entropy penalty."""

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        """Count the corners of the hypercube."""
        return CodeShape(2**self.bits, self.bits)

    def losses(self, codebook: CodebookConfig) -> tuple[str, ...]:
        """Name the loss terms."""
        return "commitment", *(("entropy",) if self.entropy_weight > 0 else ())

    def batch_loss(self, codebook: CodebookConfig) -> str | None:
        """Name the entropy penalty, where it is on."""
        return f"quantizer {self.name} with entropy_weight > 0" if self.entropy_weight else None


class LookupFreeConfig(BinaryConfig):
    """Lookup-free quantization: the signs of unbounded channels (arXiv 2310.05737)."""

    name: Literal["lfq"]
    """Kind of quantizer."""


class BinarySphericalConfig(BinaryConfig):
    """Binary spherical quantization: signs of a vector of unit length (arXiv 2406.07548)."""

    name: Literal["bsq"]
    """Kind of quantizer."""


class ResidualConfig(QuantizerConfig):
    """Residual quantization: each code of a token refines the ones before (arXiv 2203.01941)."""

    name: Literal["rvq"]
    """Kind of quantizer."""
    depth: Annotated[int, Field(ge=2, le=64)]
    """Codes of a token, each from a codebook of `codebook_size` codes of its own."""

    reads: ClassVar[frozenset[str]] = COMMON | {
        "codebook_size",
        "codebook_dim",
        "commitment_weight",
        "dead_code_restart_every",
    }

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        """Take size and dimension of each codebook from the tokenizer's settings."""
        return CodeShape(codebook.codebook_size, codebook.codebook_dim, self.depth)

    def losses(self, codebook: CodebookConfig) -> tuple[str, ...]:
        """Name the loss terms."""
        return "vq", "commitment"


PUBLISHED = VectorConfig(name="vq")
"""Quantizer of the published models, and the default."""

_MODELS = "gigatok.models.quantizers"
register(QuantizerKind(VectorConfig, f"{_MODELS}.vq:VectorQuantizer", f"{_MODELS}.layout:vq"))
register(
    QuantizerKind(
        FiniteScalarConfig,
        f"{_MODELS}.fsq:FiniteScalarQuantizer",
        f"{_MODELS}.layout:fsq",
        example={"levels": [4, 5, 3]},
    )
)
register(
    QuantizerKind(
        LookupFreeConfig,
        f"{_MODELS}.binary:LookupFreeQuantizer",
        f"{_MODELS}.layout:binary",
        example={"bits": 5},
    )
)
register(
    QuantizerKind(
        BinarySphericalConfig,
        f"{_MODELS}.binary:BinarySphericalQuantizer",
        f"{_MODELS}.layout:binary",
        example={"bits": 5},
    )
)
register(
    QuantizerKind(
        ResidualConfig,
        f"{_MODELS}.rvq:ResidualQuantizer",
        f"{_MODELS}.layout:rvq",
        example={"depth": 3},
    )
)
