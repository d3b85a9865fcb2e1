"""`python -m orchestration simulate SWEEP --devices N`: a plan on a cluster, on paper."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gigatok.text.fitting import FittingTable
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.options import AsJson, Overrides, PlannedScale, SweepFile
from orchestration.forecast.simulator import Cluster, Outcome
from orchestration.study.simulating import HOUR, Intervals, PaperRun, half_done, simulation_json
from orchestration.study.study import Study
from orchestration.terminal import plain_console


def simulate(
    sweep: SweepFile,
    devices: Annotated[int, typer.Option(min=1, help="How many there are.")],
    scale: PlannedScale = None,
    set_: Overrides = None,
    mtbf_hours: Annotated[
        float | None, typer.Option(min=1e-6, help="Mean time between failures of one device.")
    ] = None,
    preemptions_per_hour: Annotated[float, typer.Option(min=0.0, help="Of one device.")] = 0.0,
    queue_limit: Annotated[
        int | None, typer.Option(min=1, help="Stages queued or running at a time.")
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(min=1e-6, help="Of the file system, GB/s, for all together.")
    ] = None,
    checkpoint_minutes: Annotated[
        float | None, typer.Option(min=1e-3, help="Of work between checkpoints; default: best.")
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=1e-3, help="What a checkpoint takes beside the writing.")
    ] = 5.0,
    restart_seconds: Annotated[
        float, typer.Option(min=0.0, help="Before a stage that is tried again computes.")
    ] = 60.0,
    teraflops: Annotated[
        float | None, typer.Option(min=1e-6, help="Of a device, instead of the calibration.")
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="How many devices stages ask for.")] = None,
    seed: int = 0,
    runs_dir: RunsDir = DEFAULT_RUNS,
    as_json: AsJson = False,
) -> None:
    """Simulate a sweep on a cluster: makespan, idle share, lost work, best checkpoint interval."""
    cluster = Cluster(
        devices,
        # The simulator counts in seconds and bytes.
        failure_rate=0.0 if mtbf_hours is None else 1 / (mtbf_hours * HOUR),
        preemption_rate=preemptions_per_hour / HOUR,
        queue_limit=queue_limit,
        bandwidth=bandwidth and bandwidth * 1e9,
        checkpoint_seconds=checkpoint_seconds,
        restart_seconds=restart_seconds,
    )
    found = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).simulate(
        cluster,
        profile=profile,
        checkpoint_minutes=checkpoint_minutes,
        teraflops=teraflops,
        seed=seed,
    )
    if as_json:
        print(json.dumps(simulation_json(found)))
    else:
        show(plain_console(), found)


def basis_line(found: PaperRun) -> str:
    """Say what the times of stages rest on."""
    plan, costs, teraflops = found.scenario.progress.plan, found.costs, found.teraflops
    if teraflops is not None:
        return f"{plan.sweep.name} at scale {plan.sweep.scale}: {teraflops:g} TFLOP/s per device"
    known = sum(cost.seconds is not None for cost in costs.values())
    text = f"{plan.sweep.name} at scale {plan.sweep.scale}: {known} of {len(costs)} stages by "
    text += "measured times"
    if known < len(costs):
        # The order of stages is still right then; the times are not to be trusted.
        text += ", the others uncalibrated at the nominal rate of one core; give --teraflops"
    return text


def show(console: Console, found: PaperRun) -> None:
    """Print what the times rest on, the orders against each other, the checkpoint interval."""
    console.print(basis_line(found))
    scenario = found.scenario
    count = len(scenario.works) - len(scenario.progress.reused)
    console.print(f"{count} stages on {scenario.cluster.devices} devices, seed {scenario.seed}")
    console.print(_orders_table(found))
    _show_intervals(console, found.intervals)


def _orders_table(found: PaperRun) -> FittingTable:
    """Make a column per order: there are few, and each has many numbers."""
    orders = list(found.outcomes)
    table = FittingTable(("", *orders), right=orders)
    columns = [_order_cells(found, outcome) for outcome in found.outcomes.values()]
    for what in columns[0]:
        table.add_row(what, *(cells[what] for cells in columns))
    return table


def _order_cells(found: PaperRun, outcome: Outcome) -> dict[str, str]:
    """Write what an order comes to, row by row."""
    # Shares of all device time. 1e-9: a plan without anything to run takes none.
    whole = max(outcome.busy + outcome.idle, 1e-9)
    half = half_done(found.scenario, outcome)
    return {
        "all done": time_text(outcome.makespan),
        "half of trials done": "–" if half is None else time_text(half),
        "device time: useful": f"{outcome.useful / whole:.1%}",
        "  checkpoints": f"{outcome.writing / whole:.1%}",
        "  lost": f"{outcome.lost / whole:.1%}",
        "  idle": f"{outcome.idle / whole:.1%}",
        "failures": str(outcome.blows["node_lost"]),
        "preemptions": str(outcome.blows["preempted"]),
        "stages given up": str(outcome.failed),
    }


def _show_intervals(console: Console, intervals: Intervals) -> None:
    if intervals.young is not None and intervals.daly is not None:
        how = "given" if intervals.tried is None else "least device time"
        console.print(f"checkpoints every {time_text(intervals.used)} of work ({how})")
        formulas = f"Young {time_text(intervals.young)}, Daly {time_text(intervals.daly)}"
        console.print(f"by formula: {formulas}", style="dim")
    if intervals.tried is not None:
        least = min(intervals.tried.values())
        table = FittingTable(("interval", "device time"), right=("interval", "device time"))
        for interval, cost in intervals.tried.items():
            table.add_row(time_text(interval), f"+{cost / least - 1:.1%}", style="dim")
        console.print(table)


def time_text(seconds: float) -> str:
    """Write a time for people."""
    if not math.isfinite(seconds):
        return "never"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
