"""`python -m orchestration simulate SWEEP --devices N`: a plan on a cluster, on paper."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestration.commands.options import AsJson, Overrides, PlannedScale, SweepFile
from orchestration.forecast.simulator import Cluster
from orchestration.study.simulating import HOUR, Intervals, PaperRun, half_done, simulation_json
from orchestration.study.study import Study
from orchestration.terminal import plain_console, plain_table


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
    runs_dir: Annotated[Path, typer.Option(help="Calibration and what is reused.")] = Path("runs"),
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


def _orders_table(found: PaperRun) -> Table:
    times = ("all done", "half of trials", "useful", "checkpoints", "lost", "idle")
    numbers = (*times, "failures", "preempted", "gave up")
    table = plain_table(("order", *numbers), right=numbers)
    for order, outcome in found.outcomes.items():
        # Shares of all device time. 1e-9: a plan without anything to run takes none.
        whole = max(outcome.busy + outcome.idle, 1e-9)
        parts = (outcome.useful, outcome.writing, outcome.lost, outcome.idle)
        half = half_done(found.scenario, outcome)
        table.add_row(
            order,
            time_text(outcome.makespan),
            "–" if half is None else time_text(half),
            *(f"{part / whole:.1%}" for part in parts),
            str(outcome.blows["node_lost"]),
            str(outcome.blows["preempted"]),
            str(outcome.failed),
        )
    return table


def _show_intervals(console: Console, intervals: Intervals) -> None:
    if intervals.young is not None and intervals.daly is not None:
        how = "given" if intervals.tried is None else "least device time"
        console.print(
            f"checkpoints every {time_text(intervals.used)} of work ({how}); "
            f"Young {time_text(intervals.young)}, Daly {time_text(intervals.daly)}"
        )
    if intervals.tried is not None:
        least = min(intervals.tried.values())
        parts_ = (f"{time_text(i)} +{c / least - 1:.1%}" for i, c in intervals.tried.items())
        console.print("device time by interval: " + ", ".join(parts_), style="dim")


def time_text(seconds: float) -> str:
    """Write a time for people."""
    if not math.isfinite(seconds):
        return "never"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
