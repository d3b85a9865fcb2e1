"""Generator: its architecture, its training, and the sampling of images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gigatok.config.base import Config, Fraction, TrainingConfig, TransformerSize


class GeneratorArchitecture(Config):
    """Architecture of the autoregressive probe (LlamaGen), published with learned positions."""

    size: TransformerSize
    dropout: Fraction = 0.1
    """Dropout of residual branches, feed-forward outputs and input tokens alike."""
    # The share of labels that training replaces by the null class, which guidance needs.
    class_dropout: Fraction = 0.1
    # LlamaGen's rule: 8/3 of the width, rounded up to a multiple of this.
    ffn_multiple_of: PositiveInt = 256
    position: Literal["learned", "rope_2d"] = "learned"
    """Positions; `rope_2d`: rotations by row and column, for codes of a 2D tokenizer."""
    reference_rope_quirk: bool = False
    """With `rope_2d`, multiply the class's query and key by 0, as LlamaGen's table does.

    No code can then choose how much it attends to the class. Off: the class is not rotated.
    """


class GeneratorConfig(GeneratorArchitecture, TrainingConfig):
    """Generator with its training."""


class SamplingConfig(Config):
    """Sampling of images from a generator."""

    cfg_scale: Annotated[float, Field(ge=1)] = 1.5
    cfg_schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    # 0.18 is the default of the authors' `generate.py`.
    cfg_start: Fraction = 0.18
    """Fraction of the tokens that is drawn without guidance; read by the step schedule only."""
    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    """Number of likeliest codes to draw from; 0 turns the limit off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    num_images: Annotated[int, Field(ge=4)]
    """Number of images; at least 4, for the third neighbour of precision and recall."""
    batch_size: PositiveInt = 64
