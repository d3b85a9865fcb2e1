"""Cost of adopting a tokenizer: a copy of its weights."""

from __future__ import annotations

from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import variant_family
from gigatok.stages.train_tokenizer.cost import disk

COSTS = Costs(
    # Copying weights takes no products.
    flops=lambda t: 0,
    # No checkpoints: only what training would leave.
    disk=lambda t: Disk(disk(t).outputs),
    family=lambda t: (variant_family(t),),
)
