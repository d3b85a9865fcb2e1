"""What all configs rest on: the base class, sizes, and how anything is trained."""

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
"""`json_schema_extra` of a field that is not part of a stage's identity."""


Fraction = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: immutable, refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TransformerSize(Config):
    """Width, depth and heads behind a letter such as S or B (paper Table 1)."""

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
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms_and_biases: bool = True
    reference_decay_quirk: bool = False
    """Do not decay what has `norm` in its name, as the reference's FSDP trainer: other norms and
    all biases are decayed."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    grad_clip: NonNegativeFloat = 0.0
    """Global gradient norm; 0 is off."""
    ema_decay: Fraction = 0.0
    """0 is off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    reference_schedule_quirk: bool = False
    """Apply the schedule after the step, as the reference does: an optimizer's first step runs at
    full lr, and each later one at the rate of two steps before."""
    micro_batch: PositiveInt | None = Field(None, json_schema_extra=RUNTIME)
    """Images per forward pass of a process; gradients accumulate to `batch_size`. None: all.

    Not with the entropy loss of a tokenizer, which is over the batch that it sees.
    """
    activation_checkpointing: bool = Field(False, json_schema_extra=RUNTIME)
    parallel: Literal["ddp", "fsdp"] = Field("ddp", json_schema_extra=RUNTIME)
    """How several processes share a model: replicas, or shards where it is too large for one."""
    compile: bool = Field(False, json_schema_extra=RUNTIME)
    """Speed up with torch.compile, which takes minutes before the first step."""
    log_every: PositiveInt = Field(10, json_schema_extra=RUNTIME)
    checkpoint_every: PositiveInt = Field(1000, json_schema_extra=RUNTIME)
