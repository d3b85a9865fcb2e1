"""Generator: its architecture, its training, and the sampling of images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gigatok.config.fields.base import (
    UNREAD_SIZE,
    Config,
    Fraction,
)
from gigatok.config.fields.marks import COMPUTES, RUNTIME, SAME_COST, SAME_FLOPS
from gigatok.config.fields.open_name import NameOf
from gigatok.config.fields.open_union import OneOf
from gigatok.config.kinds.generators import (
    GENERATORS,
    OF_SOME,
    PUBLISHED,
    GeneratorKindConfig,
    GeneratorSettings,
    reads_of,
)
from gigatok.config.kinds.samplers import PUBLISHED as PUBLISHED_SAMPLER
from gigatok.config.kinds.samplers import SAMPLERS, SHARED, SamplerConfig
from gigatok.config.training import TrainingConfig


class GeneratorArchitecture(GeneratorSettings):
    """Architecture of the autoregressive probe; the defaults are LlamaGen's, as published.

    `architecture` names the kind; each says which of the other fields it reads.
    """

    decisive: ClassVar[tuple[str, ...]] = ("architecture",)
    architecture: Annotated[GeneratorKindConfig, OneOf(GENERATORS), COMPUTES] = PUBLISHED
    """Architecture by name, with its settings; those of the published one are keys beside it."""

    @property
    def unread(self) -> frozenset[str]:
        """Settings that this architecture does not read."""
        return OF_SOME - self.architecture.reads

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put `UNREAD_SIZE` for the size if the architecture does not read it."""
        reads = reads_of(values.get("architecture", PUBLISHED))
        return values if "size" in reads else {"size": UNREAD_SIZE, **values}

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        return cls.completed(values) if isinstance(values, Mapping) else values


class GeneratorConfig(GeneratorArchitecture, TrainingConfig):
    """Generator with its training."""


class SamplingConfig(Config):
    """Sampling of images from a generator."""

    decisive: ClassVar[tuple[str, ...]] = ("sampler",)
    cfg_scale: Annotated[float, Field(ge=1)] = 1.5
    """Scale of classifier-free guidance; 1 is no guidance."""
    cfg_schedule: Annotated[str, NameOf("guidance schedule")] = "constant"
    """Course of the guidance scale over the tokens of an image."""
    # 0.18 is the default of the authors' `generate.py`.
    cfg_start: Fraction = 0.18
    """Fraction of the tokens that is drawn without guidance; read by the step schedule only."""
    temperature: Annotated[PositiveFloat, SAME_COST] = 1.0
    """Divisor of the logits before sampling."""
    top_k: NonNegativeInt = 0
    """Number of likeliest codes that sampler `truncated` draws from; 0 turns the limit off."""
    top_p: Annotated[float, Field(gt=0, le=1), SAME_COST] = 1.0
    """Mass of the likeliest codes that sampler `truncated` draws from; 1 turns the limit off."""
    sampler: Annotated[SamplerConfig, OneOf(SAMPLERS)] = PUBLISHED_SAMPLER
    """Sampler by name, with its settings, such as `{name: min_p, min_p: 0.1}`."""
    num_images: Annotated[int, Field(ge=4)]
    """Number of images; at least 4, for the third neighbour of precision and recall."""
    batch_size: PositiveInt = 64
    """Images that are drawn at once."""
    # The authors' scripts cast the model by --precision; published scores are of fp32.
    precision: Annotated[Literal["fp32", "bf16"], SAME_FLOPS] = "fp32"
    """Type of the generator's weights, cache and logits while codes are drawn."""
    compile: Annotated[bool, RUNTIME, SAME_FLOPS] = False
    """Compile the step of a code, on a GPU to a CUDA graph, where the architecture allows it."""

    @property
    def unread(self) -> frozenset[str]:
        """Settings that this sampler does not read, which keys leave out."""
        return SHARED - self.sampler.reads


# Cached: thousands of trials then share one object, which is hashed once.
@lru_cache(maxsize=1024)
def without_guidance(sampling: SamplingConfig) -> SamplingConfig:
    """Return the same settings at a guidance scale of 1, which is none."""
    return sampling.model_copy(update={"cfg_scale": 1.0})
