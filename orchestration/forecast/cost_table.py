"""Tables of costs that `plan` shows: a row per kind of stage with totals, or a row per stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from gigatok.stages import STAGES
from gigatok.text.fitting import FittingTable
from orchestration.costs.amounts import MISSING, bytes_text, flops_text, hours_text, seconds_text
from orchestration.execution.progress import Alike, Progress
from orchestration.forecast.budget import calibrate_command, hours_unit, unpriced_lines
from orchestration.forecast.devices import Machine, Machines
from orchestration.forecast.totals import Sum, add_up, by_kind, makespan, to_run

MOST_RECORDS = 3  # names in one line; the others are counted


def kinds_table(progress: Progress, machine: Machines) -> FittingTable:
    """Build a table of the stages to run and their needs, by kind of stage."""
    # `GPU h` or `core h`.
    hours = hours_unit(progress, machine).split()[0] + " h"
    devices = _devices(progress, machine)
    memory = ("memory",) if devices is None else (devices, "memory of each")
    numbers = ("to run", "FLOPs", *memory, "time each", "all", hours, "disk")
    drops = ("disk", "FLOPs", *memory, "time each")
    table = FittingTable(("stage", *numbers), right=numbers, drops=drops)
    totals = Counter[str]()
    for group in progress.alike:
        totals[group.stage] += len(group.keys)
    todo = to_run(progress)
    parts = by_kind(todo)
    # In the order of `STAGES`, as in every other table.
    for stage in (stage for stage in STAGES if stage in totals):
        label = STAGES[stage].label
        if stage not in parts:
            table.add_row(label, f"0 of {totals[stage]}", style="dim")
            continue
        part = add_up(machine, parts[stage])
        cells = _cells(part, _each(parts[stage]), devices and _share(machine(stage)))
        table.add_row(label, f"{part.stages} of {totals[stage]}", *cells)
    total = add_up(machine, todo)
    counts = f"{total.stages} of {totals.total()}"
    cells = _cells(total, "", devices and "")
    table.add_row("total", counts, *cells, style="bold")
    return table


def _devices(progress: Progress, machine: Machines) -> str | None:
    """Name what stages run on several of; None: each runs on one."""
    places = [machine(kind) for kind in {group.stage for group in progress.alike}]
    if all(place.processes == 1 for place in places):
        return None
    return "GPUs" if any(place.gpus for place in places) else "processes"


def _share(place: Machine) -> str:
    return f"{place.gpus:g}" if place.gpus else str(place.processes)


def _cells(part: Sum, each: str, devices: str | None) -> tuple[str, ...]:
    return (
        # The head of the column says FLOPs already.
        flops_text(part.flops).removesuffix("FLOP"),
        *(() if devices is None else (devices,)),
        bytes_text(part.memory_bytes),
        each,
        seconds_text(part.seconds),
        hours_text(part.hours),
        bytes_text(part.output_bytes),
    )


def _each(groups: Iterable[Alike]) -> str:
    """Format the seconds of the shortest and of the longest stage."""
    known = [group.cost.seconds for group in groups if group.cost.seconds is not None]
    if not known:
        return MISSING
    shortest, longest = seconds_text(min(known)), seconds_text(max(known))
    if shortest == longest:
        return shortest
    # The unit is written once if both have the same.
    low, unit = shortest.split()
    return f"{low}–{longest}" if longest.endswith(unit) else f"{shortest}–{longest}"


def total_lines(progress: Progress, machine: Machines) -> Iterator[str]:
    """Yield the total time with its range, and the records that the times rest on."""
    todo = to_run(progress)
    if not todo:
        return
    total = add_up(machine, todo)
    unit = hours_unit(progress, machine)
    if total.uncalibrated:
        yield (
            f"{total.uncalibrated} of {total.stages} stages are uncalibrated: their time is not "
            f"known. `{calibrate_command(progress)}` on that device measures it"
        )
    elif total.hours is not None:
        spread = f"{hours_text(total.low_hours)} to {hours_text(total.high_hours)}"
        text = f"{hours_text(total.hours)} {unit} ({spread})"
        seconds = makespan(progress, machine)
        if seconds is not None:
            # The range of the makespan is scaled from that of the sum: both rest on the same
            # records.
            share = seconds / total.seconds if total.seconds else 0.0
            ends = f"{_scaled(total.low, share)} to {_scaled(total.high, share)}"
            # "At least": queues, failures and the order of stages can only add to it.
            text += f", at least {seconds_text(seconds)} ({ends}) from now"
        yield text
    yield from _record_lines(todo)
    yield from unpriced_lines(progress)


def _scaled(seconds: float | None, share: float) -> str:
    return seconds_text(None if seconds is None else seconds * share)


def _record_lines(groups: Iterable[Alike]) -> Iterator[str]:
    records = Counter[str]()
    for group in groups:
        if group.cost.record is not None:
            records[group.cost.record] += len(group.keys)
    if records:
        shown = [name for name, _ in records.most_common(MOST_RECORDS)]
        more = f", … {len(records) - MOST_RECORDS} more" if len(records) > MOST_RECORDS else ""
        yield f"times rest on {', '.join(shown)}{more}"


def stages_table(progress: Progress, machine: Machines) -> FittingTable:
    """Build a table with one row per stage: its needs, or the folder that it is reused from."""
    numbers = ("FLOPs", "memory", "time", "low–high", "disk")
    # What a stage is reused from, or its time rests on, goes first: it is the widest.
    table = FittingTable(
        ("stage", "of", *numbers, "rests on"),
        right=numbers,
        wraps=("of",),
        drops=("rests on", "disk", "FLOPs", "memory"),
    )
    for key, stage in progress.plan.stages.items():
        cost, name = progress.costs[key], STAGES[stage.stage].label
        # A stage that will not run is either complete already or left alone by this launch.
        if not progress.will_run(key):
            why = f"reused: {progress.folders[key].name}" if key in progress.reused else "left"
            table.add_row(name, stage.readable, *[""] * 5, why, style="dim")
            continue
        spread = MISSING
        if cost.low is not None and cost.high is not None:
            spread = f"{seconds_text(cost.low)}–{seconds_text(cost.high)}"
        table.add_row(
            name,
            stage.readable,
            flops_text(cost.flops).removesuffix("FLOP"),
            bytes_text(cost.memory_bytes),
            seconds_text(cost.seconds),
            spread,
            bytes_text(cost.disk_bytes),
            cost.record or "uncalibrated",
        )
    return table


def cost_json(progress: Progress, machine: Machines, key: str) -> dict[str, Any]:
    """Convert the cost of a stage to data; an unknown value is null."""
    cost, place = progress.costs[key], machine(progress.plan.stages[key].stage)
    hours = None if cost.seconds is None else cost.seconds * place.units / 3600
    return {
        # The intermediate values are no part of the interface; the last two lines give the useful
        # ones.
        **{name: value for name, value in asdict(cost).items() if name != "work"},
        "hours": hours,
        "hours_unit": "gpu" if place.gpus else "core",
        "device": place.device or None,
        "threads": place.threads,
        "processes": place.processes,
        "gpus": place.gpus,
        "tensor_bytes": cost.work.memory_bytes,
        "output_bytes": cost.work.output_bytes,
    }


def totals_json(progress: Progress, machine: Machines) -> dict[str, Any]:
    """Convert the totals of a launch to data."""
    todo = to_run(progress)
    total = add_up(machine, todo)
    return {
        **asdict(total),
        "hours_unit": hours_unit(progress, machine),
        "makespan_seconds": makespan(progress, machine),
        "by_stage": {kind: asdict(add_up(machine, mine)) for kind, mine in by_kind(todo).items()},
    }
