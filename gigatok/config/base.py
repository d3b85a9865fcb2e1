"""Base class of all configs, transformer sizes, and settings of training."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

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

from gigatok.config.identity import identity_text
from gigatok.config.marks import RUNTIME, SAME_COST, SAME_FLOPS

Fraction = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: immutable, refuses unknown keys, NaN and infinity."""

    # NaN is not equal to itself, so no config with it would equal its copy from a file.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @cached_property
    def identity(self) -> str:
        """Canonical JSON of what differs from the defaults (`gigatok.config.identity`).

        Kept with the config, since ten thousand trials of a plan share a few sections.
        """
        return identity_text(self)

    def __copy__(self) -> Self:
        """Copy without the text that is kept: `model_copy(update=...)` changes what it says."""
        copied = super().__copy__()
        copied.__dict__.pop("identity", None)
        return copied


class TransformerSize(Config):
    """Width, depth and heads of a transformer, with a letter such as S or B (paper Table 1)."""

    # Run-time: a size given by its numbers is the same model as one given by its letter.
    name: Annotated[str, RUNTIME] = ""
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
    lr: Annotated[PositiveFloat, SAME_COST]
    schedule: Annotated[Literal["constant", "cosine", "wsd"], SAME_COST] = "cosine"
    min_lr: Annotated[NonNegativeFloat, SAME_COST] = 0.0
    warmup_steps: Annotated[NonNegativeInt, SAME_COST] = 0
    wsd_decay_fraction: Annotated[Fraction, SAME_COST] = 0.2
    # Decay and betas of the authors' tokenizer trainer (`vq_train.py`); their generator's decay is
    # 0.05.
    weight_decay: Annotated[NonNegativeFloat, SAME_COST] = 1e-4
    decay_norms_and_biases: Annotated[bool, SAME_COST] = True
    reference_decay_quirk: Annotated[bool, SAME_COST] = False
    """Exempt from weight decay only parameters with `norm` in their name.

    The reference's FSDP trainer does this: its other norms and all biases are decayed.
    """
    beta1: Annotated[Fraction, SAME_COST] = 0.9
    beta2: Annotated[Fraction, SAME_COST] = 0.95
    grad_clip: Annotated[NonNegativeFloat, SAME_FLOPS] = 0.0
    """Largest global gradient norm; 0 turns clipping off."""
    ema_decay: Annotated[Fraction, SAME_FLOPS] = 0.0
    """Decay of the average of weights; 0 turns it off."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"], SAME_FLOPS] = "fp32"
    reference_schedule_quirk: Annotated[bool, SAME_COST] = False
    """Apply the schedule after the step, as the reference does.

    An optimizer's first step then runs at full lr, and each later one at the rate of two steps
    before; see docs/reference_quirks.md.
    """
    micro_batch: Annotated[PositiveInt | None, RUNTIME, SAME_FLOPS] = None
    """Images per forward pass of a process; gradients accumulate to `batch_size`. None: all.

    Not allowed with a tokenizer's entropy loss, which is over the batch that it sees.
    """
    activation_checkpointing: Annotated[bool, RUNTIME] = False
    parallel: Annotated[Literal["ddp", "fsdp"], RUNTIME, SAME_FLOPS] = "ddp"
    """Parallelism of several processes: replicas, or shards of a model too large for one."""
    compile: Annotated[bool, RUNTIME, SAME_FLOPS] = False
    """Compile with torch.compile, which takes minutes before the first step."""
    log_every: Annotated[PositiveInt, RUNTIME, SAME_COST] = 10
    checkpoint_every: Annotated[PositiveInt, RUNTIME, SAME_FLOPS] = 1000
