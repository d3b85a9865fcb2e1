"""Base class of all configs, transformer sizes, and settings of training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

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
from gigatok.config.marks import RUNTIME, SAME_COST, SAME_FLOPS, marked
from gigatok.config.open_name import NameOf

Fraction = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: immutable, refuses unknown keys, NaN and infinity."""

    # NaN is not equal to itself, so no config with it would equal its copy from a file.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @cached_property
    def cost_identity(self) -> str:
        """Text that configs of equal cost share: values that cost; of a loss, whether it is on."""
        kind = type(self)
        free = marked(kind, SAME_COST)
        values = {name: getattr(self, name) for name in kind.model_fields if name not in free}
        facts = {n: v > 0 if n.endswith("_weight") else v for n, v in values.items()}
        return f"{kind.__name__} {facts}"

    @cached_property
    def identity(self) -> str:
        """Canonical JSON of what differs from the defaults (`gigatok.config.identity`).

        Kept with the config, since ten thousand trials of a plan share a few sections.
        """
        return identity_text(self, self.unread)

    @property
    def unread(self) -> frozenset[str]:
        """Names of fields that others make meaningless; keys leave them out."""
        return frozenset()

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add stand-ins for required fields that others among these values make meaningless."""
        return values

    def __copy__(self) -> Self:
        """Copy without the texts that are kept: `model_copy(update=...)` changes what they say."""
        copied = super().__copy__()
        for kept in ("identity", "cost_identity"):
            copied.__dict__.pop(kept, None)
        return copied


class TransformerSize(Config):
    """Width, depth and heads of a transformer, with a letter such as S or B (paper Table 1)."""

    # Run-time: a size given by its numbers is the same model as one given by its letter.
    name: Annotated[str, RUNTIME] = ""
    """Letter of the size, such as `B`; only a name."""
    width: PositiveInt
    """Channels of the residual stream."""
    layers: PositiveInt
    """Number of transformer layers."""
    # All published sizes have heads of 64 channels.
    heads: PositiveInt
    """Attention heads of each layer; they must divide `width`."""

    @property
    def label(self) -> str:
        """Letter of the size; width and layers if it has none."""
        return self.name or f"{self.width}x{self.layers}"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerSize:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


UNREAD_SIZE = TransformerSize(name="none", width=1, layers=1, heads=1)
"""Stand-in for a size that an architecture does not read, and that need not be given."""


class TrainingConfig(Config):
    """Optimisation settings shared by tokenizers and generators. A *step* is an optimizer step."""

    steps: PositiveInt
    """Number of optimizer steps."""
    batch_size: PositiveInt
    """Images per optimizer step, over all processes together."""
    # The authors train everything at 1e-4.
    lr: Annotated[PositiveFloat, SAME_COST]
    """Peak learning rate of AdamW, reached after `warmup_steps`."""
    schedule: Annotated[str, NameOf("schedule"), SAME_COST] = "cosine"
    """Course of the learning rate; `wsd`: constant, then a decay to 0 over the last steps."""
    # 1e-5 in the authors' tokenizer configs.
    min_lr: Annotated[NonNegativeFloat, SAME_COST] = 0.0
    """Learning rate at the end of the cosine schedule."""
    warmup_steps: Annotated[NonNegativeInt, SAME_COST] = 0
    """Steps over which the learning rate rises to `lr`."""
    wsd_decay_fraction: Annotated[Fraction, SAME_COST] = 0.2
    """Fraction of the steps over which the `wsd` schedule decays."""
    # Decay and betas of the authors' tokenizer trainer (`vq_train.py`); their generator's decay is
    # 0.05.
    weight_decay: Annotated[NonNegativeFloat, SAME_COST] = 1e-4
    """Weight decay of AdamW."""
    decay_norms_and_biases: Annotated[bool, SAME_COST] = True
    """Decay norms and biases too, as the authors' tokenizer trainer does."""
    reference_decay_quirk: Annotated[bool, SAME_COST] = False
    """Exempt from weight decay only parameters with `norm` in their name.

    The reference's FSDP trainer does this: its other norms and all biases are decayed.
    """
    beta1: Annotated[Fraction, SAME_COST] = 0.9
    """Decay of AdamW's first moment, the mean of gradients."""
    beta2: Annotated[Fraction, SAME_COST] = 0.95
    """Decay of AdamW's second moment, the mean of squared gradients."""
    # The authors clip tokenizers at 10 and generators at 1.
    grad_clip: Annotated[NonNegativeFloat, SAME_FLOPS] = 0.0
    """Largest global gradient norm; 0 turns clipping off."""
    # Off in the authors' scripts, too.
    ema_decay: Annotated[Fraction, SAME_FLOPS] = 0.0
    """Decay of the average of weights; 0 turns it off."""
    # The authors train S-S to B-L in fp16 and XL-XXL in bf16.
    precision: Annotated[Literal["fp32", "bf16", "fp16"], SAME_FLOPS] = "fp32"
    """Type that forward passes compute in; weights stay in fp32."""
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
    """Recompute transformer layers in the backward pass: less memory, more FLOPs."""
    parallel: Annotated[Literal["ddp", "fsdp"], RUNTIME, SAME_FLOPS] = "ddp"
    """Parallelism of several processes: replicas, or shards of a model too large for one."""
    compile: Annotated[bool, RUNTIME, SAME_FLOPS] = False
    """Compile with torch.compile, which takes minutes before the first step."""
    log_every: Annotated[PositiveInt, RUNTIME, SAME_COST] = 10
    """Steps between two points of a training curve."""
    checkpoint_every: Annotated[PositiveInt, RUNTIME, SAME_FLOPS] = 1000
    """Steps between two checkpoints."""
