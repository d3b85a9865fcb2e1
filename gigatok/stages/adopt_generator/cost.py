"""Cost of adopting a generator: its scores, and a copy of its weights."""

from __future__ import annotations

from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import data_family
from gigatok.stages.train_generator.cost import disk, scoring_flops

COSTS = Costs(
    # Nothing is trained, but the losses on both splits are computed.
    flops=scoring_flops,
    # No checkpoints: only what training would leave.
    disk=lambda t: Disk(disk(t).outputs),
    family=lambda t: (data_family(t),),
)
