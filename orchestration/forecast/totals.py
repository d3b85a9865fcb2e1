"""What a plan as a whole will need: sums over the stages that a launch would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchestration.execution.progress import Progress
from orchestration.execution.scheduler import remaining_seconds
from orchestration.forecast.devices import Machines

HOUR = 3600.0


@dataclass(frozen=True)
class Sum:
    """Stages together.

    Attributes:
        stages: how many.
        uncalibrated: how many of them have no time.
        flops: in all.
        memory_bytes: the most that one needs; None: not known of any.
        output_bytes: what stays on disk.
        working_bytes: the most that one needs beside that while it runs.
        seconds: one after another; None if any is uncalibrated, like those below.
        low: of about 95 % of such predictions, as if all erred in the same direction.
        high: the same.
        hours: of GPUs; of cores where stages use none.
        low_hours: at `low`.
        high_hours: at `high`.
    """

    stages: int
    uncalibrated: int
    flops: float
    memory_bytes: int | None
    output_bytes: int
    working_bytes: int
    seconds: float | None
    low: float | None
    high: float | None
    hours: float | None
    low_hours: float | None
    high_hours: float | None


def add_up(progress: Progress, machine: Machines, keys: Iterable[str]) -> Sum:
    """Stages of a plan together.

    Args:
        progress: the plan and its costs.
        machine: on what stages run.
        keys: which stages.
    """
    # Thousands of stages share few costs, so each is looked at once.
    alike = Counter((progress.plan.stages[key].stage, id(progress.costs[key])) for key in keys)
    known = {id(cost): cost for cost in progress.costs.values()} if alike else {}
    costs = [known[number] for _, number in alike]
    counts: list[float] = list(alike.values())
    units = [n * machine(stage).units / HOUR for (stage, _), n in alike.items()]
    memory = [cost.memory_bytes for cost in costs if cost.memory_bytes is not None]
    seconds = [cost.seconds for cost in costs]
    low, high = [cost.low for cost in costs], [cost.high for cost in costs]
    return Sum(
        stages=alike.total(),
        uncalibrated=sum(
            n for c, n in zip(costs, alike.values(), strict=True) if c.seconds is None
        ),
        flops=sum(cost.flops * n for cost, n in zip(costs, counts, strict=True)),
        memory_bytes=max(memory, default=None),
        output_bytes=sum(
            c.work.output_bytes * n for c, n in zip(costs, alike.values(), strict=True)
        ),
        working_bytes=max((cost.work.working_bytes for cost in costs), default=0),
        seconds=_sum(seconds, counts),
        low=_sum(low, counts),
        high=_sum(high, counts),
        hours=_sum(seconds, units),
        low_hours=_sum(low, units),
        high_hours=_sum(high, units),
    )


def _sum(values: list[float | None], weights: list[float]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(v * w for v, w in zip(known, weights, strict=True))


def makespan(progress: Progress, machine: Machines) -> float | None:
    """Seconds until all is done: no shorter than the longest chain, nor than all over the slots.

    None if any stage that will run is uncalibrated, or if nobody said how many run at a time.
    """
    todo = to_run(progress)
    slots = [machine(stage).slots for stage in {progress.plan.stages[k].stage for k in todo}]
    known = [slot for slot in slots if slot is not None]
    total = add_up(progress, machine, todo).seconds
    if not todo or total is None or len(known) < len(slots):
        return None
    seconds = dict.fromkeys(progress.plan.stages, 0.0)
    seconds |= {key: progress.costs[key].seconds or 0.0 for key in todo}
    chain = max(remaining_seconds(progress.graph, seconds).values())
    return max(chain, total / min(known))


def to_run(progress: Progress) -> list[str]:
    """Keys of the stages that a launch would run."""
    return [key for key in progress.plan.stages if progress.will_run(key)]


def disk_needed(total: Sum, slots: int | None) -> int:
    """Bytes at most at once: all outputs, and the largest working files of what runs at a time."""
    return total.output_bytes + min(slots or total.stages, total.stages) * total.working_bytes
