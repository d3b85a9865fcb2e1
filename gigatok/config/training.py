"""Settings of training that tokenizers and generators share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gigatok.config.fields.base import Config, Fraction
from gigatok.config.fields.marks import RUNTIME, SAME_COST, SAME_FLOPS
from gigatok.config.fields.open_name import NameOf
from gigatok.config.fields.open_union import OneOf
from gigatok.config.kinds.optimizers import OPTIMIZERS, AdamWConfig, OptimizerConfig


class TrainingConfig(Config):
    """Optimisation settings shared by tokenizers and generators. A *step* is an optimizer step."""

    steps: PositiveInt
    """Number of optimizer steps."""
    batch_size: PositiveInt
    """Images per optimizer step, over all processes together."""
    optimizer: Annotated[OptimizerConfig, OneOf(OPTIMIZERS)] = AdamWConfig(name="adamw")
    """Optimizer: `adamw` (published), or `muon` for the matrices of the transformer layers."""
    # The authors train everything at 1e-4.
    lr: Annotated[PositiveFloat, SAME_COST]
    """Peak learning rate, reached after `warmup_steps`; of all that AdamW updates."""
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
    """Weight decay, apart from the gradient (decoupled), in units of the learning rate."""
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
