"""Budget check: refuses a launch that exceeds memory, GPU hours or disk, with the arithmetic."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import NonNegativeFloat

from gigatok.config.fields.base import UnixTime
from gigatok.stages import STAGES
from orchestration.command_lines import steering
from orchestration.costs.amounts import bytes_text, hours_text
from orchestration.costs.cost import Cost, stage_work
from orchestration.execution.progress import Alike, Progress
from orchestration.forecast.devices import GB, Machine, Machines
from orchestration.forecast.totals import (
    HOUR,
    Sum,
    add_up,
    by_kind,
    disk_needed,
    to_run,
)
from orchestration.runs.records import Record, append_lines, read_lines
from orchestration.runs.state import Store
from orchestration.runs.studies import study_folder

HALF = {"bf16", "fp16"}


class Budget(Record):
    """Most that a launch may spend; None: no limit."""

    max_gpu_hours: NonNegativeFloat | None = None
    """GPU hours; core hours if stages use no GPU."""
    max_disk: NonNegativeFloat | None = None
    """GiB in the runs directory."""


class Refusal(Record):
    """Launch that was refused."""

    plan: str
    scale: str
    reasons: list[str]
    time: UnixTime
    claims: tuple[str, ...] = ()
    """Claims that stay undecided for it: the launch was to add a seed to what is complete."""


def reasons(progress: Progress, machine: Machines, budget: Budget, runs_dir: Path) -> list[str]:
    """Say why the rest of a plan cannot be launched; empty if it can."""
    todo = to_run(progress)
    total = add_up(machine, todo)
    return [
        *_memory(progress, machine, todo),
        *_hours(progress, machine, budget, total, todo),
        *_disk(machine, budget, total, todo, runs_dir),
    ]


def _memory(progress: Progress, machine: Machines, todo: Sequence[Alike]) -> Iterator[str]:
    """Yield one line per kind of stage, about the stage that needs most."""
    worst: dict[str, tuple[int, str]] = {}
    count: Counter[str] = Counter()
    for group in todo:
        stage, need = group.stage, _least_memory(group.cost)
        limit = machine(stage).memory_bytes
        if need is not None and limit is not None and need > limit:
            count[stage] += len(group.keys)
            worst[stage] = max(worst.get(stage, (0, "")), (need, max(group.keys)))
    for stage, (need, key) in worst.items():
        yield _memory_line(progress, key, need, machine(stage), count[stage])


def _least_memory(cost: Cost) -> int | None:
    """Return the least bytes that a stage needs; the closed form counts 16-bit values as 32."""
    if cost.memory_bytes is None or HALF.isdisjoint(cost.work.family.split()):
        return cost.memory_bytes
    # A refusal must be certain, so half of the tensors is assumed to be 16-bit.
    return cost.memory_bytes - (cost.work.memory_bytes or 0) // 2


def _memory_line(progress: Progress, key: str, need: int, machine: Machine, count: int) -> str:
    planned, work = progress.plan.stages[key], progress.costs[key].work
    tensors = work.memory_bytes or 0
    half = "" if HALF.isdisjoint(work.family.split()) else " / 2 (16 bits)"
    beside = need - (tensors // 2 if half else tensors)
    text = f"memory: {planned.stage} {planned.readable} needs {bytes_text(need)}"
    text += f" = {bytes_text(tensors)}{half} of tensors"
    text += f" + {bytes_text(beside)} of the process" if beside else ""
    where = machine.device or "what the profile asks for"
    text += f"; {where} has {bytes_text(machine.memory_bytes)} per process"
    text += f" ({count} stages like this)" if count > 1 else ""
    return text + _advice(progress, key, machine, need)


def _advice(progress: Progress, key: str, machine: Machine, need: int) -> str:
    """Name the largest micro-batch that would fit, if there is any."""
    planned = progress.plan.stages[key]
    stage = STAGES[planned.stage]
    section: str | None = stage.model
    if not stage.trains or section is None or machine.memory_bytes is None:
        return "; ask for more"
    training = getattr(planned.trial, section)
    whole = progress.costs[key].work.memory_bytes or 0
    # A loss over the whole batch excludes a smaller micro-batch.
    if getattr(training, "needs_whole_batch", None) is None:
        # Halved, as a worker does after it ran out of memory: the advice is what it would try.
        size = training.batch_size // machine.processes // 2
        while size:
            update = {section: training.model_copy(update={"micro_batch": size})}
            trial = planned.trial.model_copy(update=update)
            tensors = stage_work(planned.stage, trial, machine.processes).memory_bytes or 0
            # The part of the process that is not tensors stays as it is.
            if need - whole + tensors <= machine.memory_bytes:
                return f"; {section}.micro_batch={size} would fit ({bytes_text(tensors)})"
            size //= 2
    return f"; try {section}.activation_checkpointing, fsdp over more processes, or a larger one"


def _hours(
    progress: Progress, machine: Machines, budget: Budget, total: Sum, todo: Sequence[Alike]
) -> Iterator[str]:
    most = budget.max_gpu_hours
    if most is None:
        return
    unit = hours_unit(progress, machine)
    # An unknown time is refused too: otherwise a limit would be a promise that nobody can keep.
    if total.uncalibrated:
        devices = {machine(group.stage).device for group in todo}
        where = ", ".join(sorted(device or "that device" for device in devices))
        yield (
            f"--max-gpu-hours {most:g}: nobody knows what {total.uncalibrated} of "
            f"{total.stages} stages take on {where}: uncalibrated. There, run "
            f"`{calibrate_command(progress)}`, or leave the limit out"
        )
    elif total.hours is not None and total.hours > most:
        parts = {stage: add_up(machine, mine) for stage, mine in by_kind(todo).items()}
        terms = [
            f"{part.stages} {stage} {hours_text(part.hours)}" for stage, part in parts.items()
        ]
        spread = f"{hours_text(total.low_hours)} to {hours_text(total.high_hours)}"
        yield (
            f"--max-gpu-hours {most:g}: {' + '.join(terms)} = {hours_text(total.hours)} {unit} "
            f"({spread})"
        )


def unpriced_lines(progress: Progress) -> Iterator[str]:
    """Say which stages to run come without costs, so that no sum and no limit counts them."""
    unpriced = [group for group in to_run(progress) if group.cost.flops is None]
    if not unpriced:
        return
    kinds = dict.fromkeys(group.stage for group in unpriced)
    count = sum(len(group.keys) for group in unpriced)
    text = f"{count} stages are registered without costs ({', '.join(kinds)}): totals, "
    text += "--max-gpu-hours and --max-disk count neither their FLOPs nor their disk"
    if new := sum(len(group.keys) for group in unpriced if group.cost.uncounted):
        text += f", and no time of {new} of them, as none like them has run here"
    yield text


def calibrate_command(progress: Progress) -> str:
    """Write the command that measures what the stages of a plan take."""
    sweep = progress.plan.sweep
    return steering("calibrate", sweep.argument, progress.store, "--scale", sweep.scale)


def _disk(
    machine: Machines, budget: Budget, total: Sum, todo: Sequence[Alike], runs_dir: Path
) -> Iterator[str]:
    # An unlimited number of slots counts as all stages at a time.
    slots = [machine(stage).slots for stage in by_kind(todo)]
    at_once = None if None in slots else max((s for s in slots if s is not None), default=None)
    # Working files count once per stage that runs at a time; outputs of all stages stay.
    need = disk_needed(total, at_once)
    sum_text = (
        f"{bytes_text(total.output_bytes)} of outputs + {bytes_text(need - total.output_bytes)} "
        f"of checkpoints and the like = {bytes_text(need)}"
    )
    if budget.max_disk is not None and need > budget.max_disk * GB:
        yield f"--max-disk {budget.max_disk:g} GiB: {sum_text}"
    # The directory may not exist yet; the nearest folder above it is on the same disk.
    free = shutil.disk_usage(_existing(runs_dir)).free
    if need > free:
        yield f"disk: {sum_text}; {runs_dir} has {bytes_text(free)} free"


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def hours_unit(progress: Progress, machine: Machines) -> str:
    """Name the unit of this plan's hours."""
    kinds = {group.stage for group in progress.alike}
    return "GPU hours" if any(machine(stage).gpus for stage in kinds) else "core hours"


def hours_spent(progress: Progress, machine: Machines, since: float) -> float:
    """Add up the GPU hours that stages of a plan took, whoever ran them; core hours without GPU.

    Args:
        progress: of the plan.
        machine: on what each kind of stage runs.
        since: only attempts that started later, UNIX seconds.
    """
    return sum(
        (attempt.ended - attempt.started) / HOUR * machine(progress.plan.stages[key].stage).units
        for key, folder in progress.folders.items()
        for attempt in folder.attempts()
        # The end of a worker that was killed is not known.
        if attempt.started >= since and attempt.ended is not None
    )


def record_refusal(
    store: Store,
    sweep: str,
    plan: str,
    scale: str,
    found: list[str],
    claims: tuple[str, ...] = (),
) -> None:
    """Record for `status` why a plan of a sweep was not launched, or not to its end.

    Args:
        store: runs directory.
        sweep: name of the sweep.
        plan: key of the plan.
        scale: its scale.
        found: reasons, in words.
        claims: names of the claims that stay undecided because of it.
    """
    refusal = Refusal(plan=plan, scale=scale, reasons=found, time=time.time(), claims=claims)
    append_lines(_refusals(store, sweep), [refusal])


def newest_refusal(store: Store, sweep: str, since: float = 0.0) -> Refusal | None:
    """Read the last refused launch of a sweep after a time; None if there is none."""
    # Lines are appended, so the last is the newest.
    newest = read_lines(_refusals(store, sweep), Refusal)[-1:]
    return next((refusal for refusal in newest if refusal.time > since), None)


def _refusals(store: Store, sweep: str) -> Path:
    return study_folder(store, sweep) / "refusals.jsonl"
