"""A generator: its architecture, its training, and how images are drawn from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gigatok.config.base import Config, Fraction, TrainingConfig, TransformerSize
from gigatok.config.marks import COMPUTES, SAME_COST


class GeneratorArchitecture(Config):
    """The autoregressive probe (LlamaGen), published with learned absolute positions."""

    size: Annotated[TransformerSize, COMPUTES]
    dropout: Fraction = 0.1
    """Of residual branches, feed-forward outputs and input tokens alike."""
    class_dropout: Fraction = 0.1
    ffn_multiple_of: Annotated[PositiveInt, COMPUTES] = 256
    position: Annotated[Literal["learned", "rope_2d"], COMPUTES] = "learned"
    """`rope_2d`: rotations by row and column, for codes of a 2d tokenizer (LlamaGen)."""
    reference_rope_quirk: Annotated[bool, COMPUTES] = False
    """With `rope_2d`, multiply the class's query and key by 0, as LlamaGen's table does: no code
    can then choose how much it attends to the class. Off: the class is not rotated."""


class GeneratorConfig(GeneratorArchitecture, TrainingConfig):
    """A generator and how it is trained."""


class SamplingConfig(Config):
    """How images are drawn from a generator."""

    cfg_scale: Annotated[float, Field(ge=1)] = 1.5
    cfg_schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    cfg_start: Fraction = 0.18
    """Fraction of the tokens before guidance sets in; only the step schedule reads it."""
    temperature: Annotated[PositiveFloat, SAME_COST] = 1.0
    top_k: NonNegativeInt = 0
    """0 is off."""
    top_p: Annotated[float, Field(gt=0, le=1), SAME_COST] = 1.0
    num_images: Annotated[int, Field(ge=4)]
    """At least 4, for the third neighbour of precision and recall."""
    batch_size: PositiveInt = 64
