"""Totals of a plan: sums over the stages that a launch would run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestration.execution.progress import Alike, Progress
from orchestration.execution.scheduler import remaining_seconds
from orchestration.forecast.devices import Machines

HOUR = 3600.0


@dataclass(frozen=True)
class Sum:
    """Sum over stages.

    Attributes:
        stages: number of stages.
        uncalibrated: number of stages without a time.
        unpriced: number of stages without costs. Sums of bytes leave them out, and so do sums of
            time until one like them has run.
        flops: FLOPs of all; None: not known of each.
        memory_bytes: the most that one stage needs; None: not known of any.
        output_bytes: files that stay on disk.
        working_bytes: most bytes that one running stage needs in addition to its outputs.
        seconds: one after another; None if any is uncalibrated, like all values below.
        low: lower end for about 95 % of predictions, as if all erred in the same direction.
        high: upper end, likewise.
        hours: GPU hours; core hours if stages use no GPU.
        low_hours: hours at `low`.
        high_hours: hours at `high`.
    """

    stages: int
    uncalibrated: int
    unpriced: int
    flops: float | None
    memory_bytes: int | None
    output_bytes: int
    working_bytes: int
    seconds: float | None
    low: float | None
    high: float | None
    hours: float | None
    low_hours: float | None
    high_hours: float | None


def to_run(progress: Progress) -> list[Alike]:
    """Group the stages that a launch would run by kind and cost."""
    states, left = progress.states, progress.left
    return [
        Alike(group.stage, group.cost, keys)
        for group in progress.alike
        if (keys := [key for key in group.keys if states[key] == "WAITING" and key not in left])
    ]


def by_kind(groups: Iterable[Alike]) -> dict[str, list[Alike]]:
    """Sort groups of stages by kind of stage."""
    found: dict[str, list[Alike]] = {}
    for group in groups:
        found.setdefault(group.stage, []).append(group)
    return found


def add_up(machine: Machines, groups: Iterable[Alike]) -> Sum:
    """Add up stages of a plan.

    Args:
        machine: function from a stage's name to its resources.
        groups: the stages.
    """
    # Of each: its cost, how many there are, and the hours that a second of all of them is.
    rows = [(one.cost, n := len(one.keys), n * machine(one.stage).units / HOUR) for one in groups]
    counted = [row for row in rows if not row[0].uncounted]
    flops = [None if cost.flops is None else cost.flops * n for cost, n, _ in rows]
    memory = [cost.memory_bytes for cost, _, _ in rows if cost.memory_bytes is not None]

    def sum_up(name: str, *, hours: bool = False) -> float | None:
        spans = [(getattr(c, name), units if hours else n) for c, n, units in counted]
        known: list[float] = [value * weight for value, weight in spans if value is not None]
        # One unknown time makes the sum unknown; leaving it out would promise too little.
        return sum(known) if len(known) == len(spans) and (spans or not rows) else None

    return Sum(
        stages=sum(n for _, n, _ in rows),
        uncalibrated=sum(n for cost, n, _ in counted if cost.seconds is None),
        unpriced=sum(n for cost, n, _ in rows if cost.flops is None),
        flops=None if None in flops else sum(value or 0.0 for value in flops),
        memory_bytes=max(memory, default=None),
        output_bytes=sum((cost.work.output_bytes or 0) * n for cost, n, _ in rows),
        # The most of one stage: working files go when it is done.
        working_bytes=max((cost.work.working_bytes or 0 for cost, _, _ in rows), default=0),
        seconds=sum_up("seconds"),
        low=sum_up("low"),
        high=sum_up("high"),
        hours=sum_up("seconds", hours=True),
        low_hours=sum_up("low", hours=True),
        high_hours=sum_up("high", hours=True),
    )


def makespan(progress: Progress, machine: Machines) -> float | None:
    """Bound the seconds until all is done by the longest chain, and by all stages over the slots.

    None if any stage that will run is uncalibrated, or if the number of slots is unknown. Stages
    without costs count once one like them has run.
    """
    seconds, shares = dict.fromkeys(progress.plan.stages, 0.0), 0.0
    for group in to_run(progress):
        slots = machine(group.stage).slots
        known = 0.0 if group.cost.uncounted else group.cost.seconds
        if known is None or slots is None:
            return None
        # Kinds may differ in slots: a stage on half of the GPUs fills half of the machine.
        shares += len(group.keys) * known / slots
        seconds.update(dict.fromkeys(group.keys, known))
    # Stages that will not run take 0 seconds and so cost the chain nothing.
    chain = max(remaining_seconds(progress.graph, seconds).values(), default=0.0)
    return max(chain, shares) or None


def disk_needed(total: Sum, slots: int | None) -> int:
    """Compute the most bytes at once: all outputs, and the working files of running stages."""
    return total.output_bytes + min(slots or total.stages, total.stages) * total.working_bytes
