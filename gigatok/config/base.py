"""Base class of all configs, transformer sizes, and settings of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

RUNTIME: dict[str, Any] = {"identity": False}
"""Mark (`json_schema_extra`) of a field that is not part of a stage's identity."""


Fraction = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: immutable, refuses unknown keys, NaN and infinity."""

    # NaN is not equal to itself, so no config with it would equal its copy from a file.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TransformerSize(Config):
    """Width, depth and heads of a transformer, with a letter such as S or B (paper Table 1)."""

    # Run-time: a size given by its numbers is the same model as one given by its letter.
    name: str = Field("", json_schema_extra=RUNTIME)
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerSize:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class TrainingConfig(Config):
    """Optimisation settings shared by tokenizers and generators. A *step* is an optimizer step."""

    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    min_lr: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    wsd_decay_fraction: Fraction = 0.2
    # Decay and betas of the authors' tokenizer trainer (`vq_train.py`); their generator's decay is
    # 0.05.
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms_and_biases: bool = True
    reference_decay_quirk: bool = False
    """Exempt from weight decay only parameters with `norm` in their name.

    The reference's FSDP trainer does this: its other norms and all biases are decayed.
    """
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    grad_clip: NonNegativeFloat = 0.0
    """Largest global gradient norm; 0 turns clipping off."""
    ema_decay: Fraction = 0.0
    """Decay of the average of weights; 0 turns it off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    reference_schedule_quirk: bool = False
    """Apply the schedule after the step, as the reference does.

    An optimizer's first step then runs at full lr, and each later one at the rate of two steps
    before; see docs/reference_quirks.md.
    """
    micro_batch: PositiveInt | None = Field(None, json_schema_extra=RUNTIME)
    """Images per forward pass of a process; gradients accumulate to `batch_size`. None: all.

    Not allowed with a tokenizer's entropy loss, which is over the batch that it sees.
    """
    activation_checkpointing: bool = Field(False, json_schema_extra=RUNTIME)
    parallel: Literal["ddp", "fsdp"] = Field("ddp", json_schema_extra=RUNTIME)
    """Parallelism of several processes: replicas, or shards of a model too large for one."""
    compile: bool = Field(False, json_schema_extra=RUNTIME)
    """Compile with torch.compile, which takes minutes before the first step."""
    log_every: PositiveInt = Field(10, json_schema_extra=RUNTIME)
    checkpoint_every: PositiveInt = Field(1000, json_schema_extra=RUNTIME)
