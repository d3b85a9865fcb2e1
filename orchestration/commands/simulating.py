"""`python -m orchestration simulate SWEEP --devices N`: a plan on a cluster, on paper."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gigatok.stages import STAGES
from orchestration.costs.calibration import load_calibration
from orchestration.costs.cost import Cost, predict
from orchestration.execution.progress import Progress, survey
from orchestration.execution.scheduler import ORDERS, Scheduler
from orchestration.exits import fail
from orchestration.forecast.simulator import (
    Blow,
    Cluster,
    Outcome,
    Simulation,
    Work,
    best_interval,
    daly_interval,
    young_interval,
)
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep

HOUR = 3600.0
STATE_COPIES = 4.0
"""A checkpoint of training in units of the model that it leaves: weights, Adam's two moments and
the moving average."""


@dataclass(frozen=True)
class Scenario:
    """What is to be simulated.

    Attributes:
        progress: of the plan; what is complete in the runs directory is not run.
        works: what each stage takes.
        cluster: where.
        attempts: in a row without progress before a stage fails.
        seed: of the failures.
    """

    progress: Progress
    works: Mapping[str, Work]
    cluster: Cluster
    attempts: Mapping[Blow, int]
    seed: int

    def run(self, order: str, interval: float) -> Outcome:
        """Simulate under an order, with so many seconds of work between checkpoints."""
        plan, graph = self.progress.plan, self.progress.graph
        seconds = {key: work.seconds for key, work in self.works.items()}
        trials = [trial.stages.values() for trial in plan.trials]
        ranks = ORDERS[order](graph, trials, seconds)
        scheduler = Scheduler(graph, ranks, complete=self.progress.reused)
        simulation = Simulation(
            scheduler,
            self.works,
            self.cluster,
            interval=interval,
            attempts=self.attempts,
            seed=self.seed,
        )
        return simulation.run()


@dataclass(frozen=True)
class Intervals:
    """Seconds of work between checkpoints.

    Attributes:
        used: in the simulation.
        young: by Young's formula, for the mean stage; None: nothing fails.
        daly: by Daly's.
        tried: interval -> device-seconds in all, where the best was sought.
    """

    used: float
    young: float | None = None
    daly: float | None = None
    tried: Mapping[float, float] | None = None


def simulate(
    sweep: Annotated[str, typer.Argument(help="A sweep's YAML file, or its bare name.")],
    devices: Annotated[int, typer.Option(min=1, help="How many there are.")],
    scale: str | None = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
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
    profile_file: Annotated[
        Path | None, typer.Option("--profile", help="How many devices stages ask for.")
    ] = None,
    seed: int = 0,
    runs_dir: Annotated[Path, typer.Option(help="Calibration and what is reused.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Simulate a sweep on a cluster: makespan, idle share, lost work, best checkpoint interval."""
    cluster = Cluster(
        devices,
        failure_rate=0.0 if mtbf_hours is None else 1 / (mtbf_hours * HOUR),
        preemption_rate=preemptions_per_hour / HOUR,
        queue_limit=queue_limit,
        bandwidth=None if bandwidth is None else bandwidth * 1e9,
        checkpoint_seconds=checkpoint_seconds,
        restart_seconds=restart_seconds,
    )
    try:
        loaded = load_sweep(sweep, scale, set_ or [])
        plan = make_plan(loaded, expand(loaded))
        profile = load_profile(profile_file)
        calibration = load_calibration(Store(runs_dir))
        costs = predict(plan, calibration, calibration.newest_site)
        works = stage_works(plan, costs, profile, teraflops)
        attempts: dict[Blow, int] = {
            "node_lost": profile.attempts("node_lost"),
            "preempted": profile.attempts("preempted"),
        }
        scenario = Scenario(survey(plan, Store(runs_dir)), works, cluster, attempts, seed)
        intervals = choose_interval(scenario, profile.ready_order, checkpoint_minutes)
        outcomes = {order: scenario.run(order, intervals.used) for order in ORDERS}
    except ValueError as error:
        fail(error)
    if as_json:
        print(json.dumps(simulation_json(scenario, intervals, outcomes)))
        return
    console = Console(markup=False, highlight=False)
    console.print(basis_line(plan, costs, teraflops))
    show(console, scenario, intervals, outcomes)


# What goes in


def stage_works(
    plan: Plan, costs: Mapping[str, Cost], profile: Profile, teraflops: float | None
) -> dict[str, Work]:
    """What each stage takes, by its predicted cost."""
    works = {}
    for key, stage in plan.stages.items():
        cost, processes = costs[key], profile.request(stage.stage).processes
        seconds = cost.ordering_seconds
        if teraflops is not None:
            seconds = cost.flops / (teraflops * 1e12 * processes)
        state = STATE_COPIES * cost.work.output_bytes if STAGES[stage.stage].parallel else None
        works[key] = Work(seconds, processes, state)
    return works


def choose_interval(scenario: Scenario, order: str, minutes: float | None) -> Intervals:
    """The interval that is asked for, or the one that costs least device time."""
    cluster = scenario.cluster
    saving = [w for w in scenario.works.values() if w.checkpoint_bytes is not None]
    weight = sum(work.seconds for work in saving)
    if not cluster.failure_rate or not weight:
        return Intervals(math.inf if minutes is None else minutes * 60)
    pause = cluster.checkpoint_seconds
    if cluster.bandwidth is not None:
        total = sum(work.seconds * (work.checkpoint_bytes or 0.0) for work in saving)
        pause += total / weight / cluster.bandwidth
    devices = sum(work.seconds * work.devices for work in saving) / weight
    mtbf = 1 / (cluster.failure_rate * devices)
    young, daly = young_interval(pause, mtbf), daly_interval(pause, mtbf)
    if minutes is not None:
        return Intervals(minutes * 60, young, daly)
    # Here no stage may be given up: that would look cheap.
    patient = replace(scenario, attempts={"node_lost": 10**9, "preempted": 10**9})
    best, tried = best_interval(lambda interval: patient.run(order, interval).busy, young)
    return Intervals(best, young, daly, tried)


# What comes out


def half_done(scenario: Scenario, outcome: Outcome) -> float | None:
    """Seconds until half of the trials have all their results; None: they never have."""
    ends = outcome.ends | dict.fromkeys(scenario.progress.reused, 0.0)
    trials = scenario.progress.plan.trials
    done = [max(ends.get(key, math.inf) for key in trial.stages.values()) for trial in trials]
    middle = median(done)
    return middle if math.isfinite(middle) else None


def simulation_json(
    scenario: Scenario, intervals: Intervals, outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    """The same as data; times in seconds."""
    return {
        "plan": scenario.progress.plan.key,
        "devices": scenario.cluster.devices,
        "seed": scenario.seed,
        "stages": len(scenario.works) - len(scenario.progress.reused),
        "interval": intervals.used if math.isfinite(intervals.used) else None,
        "young": intervals.young,
        "daly": intervals.daly,
        "orders": {
            order: {
                "makespan": outcome.makespan,
                "half_done": half_done(scenario, outcome),
                "useful": outcome.useful,
                "writing": outcome.writing,
                "lost": outcome.lost,
                "idle": outcome.idle,
                "failures": outcome.blows["node_lost"],
                "preemptions": outcome.blows["preempted"],
                "complete": outcome.complete,
                "failed": outcome.failed,
            }
            for order, outcome in outcomes.items()
        },
    }


def basis_line(plan: Plan, costs: Mapping[str, Cost], teraflops: float | None) -> str:
    """What the times of stages rest on."""
    if teraflops is not None:
        return f"{plan.sweep.name} at scale {plan.sweep.scale}: {teraflops:g} TFLOP/s per device"
    known = sum(cost.seconds is not None for cost in costs.values())
    text = f"{plan.sweep.name} at scale {plan.sweep.scale}: {known} of {len(costs)} stages by "
    text += "measured times"
    if known < len(costs):
        text += ", the others uncalibrated at the nominal rate of one core; give --teraflops"
    return text


def show(
    console: Console,
    scenario: Scenario,
    intervals: Intervals,
    outcomes: Mapping[str, Outcome],
) -> None:
    """Orders against each other, then the checkpoint interval."""
    table = Table(box=None, pad_edge=False)
    heads = ("order", "all done", "half of trials", "useful", "checkpoints", "lost", "idle")
    for head in (*heads, "failures", "preempted", "gave up"):
        table.add_column(head, justify="left" if head == "order" else "right")
    for order, outcome in outcomes.items():
        whole = max(outcome.busy + outcome.idle, 1e-9)
        parts = (outcome.useful, outcome.writing, outcome.lost, outcome.idle)
        half = half_done(scenario, outcome)
        table.add_row(
            order,
            time_text(outcome.makespan),
            "–" if half is None else time_text(half),
            *(f"{part / whole:.1%}" for part in parts),
            str(outcome.blows["node_lost"]),
            str(outcome.blows["preempted"]),
            str(outcome.failed),
        )
    count = len(scenario.works) - len(scenario.progress.reused)
    console.print(f"{count} stages on {scenario.cluster.devices} devices, seed {scenario.seed}")
    console.print(table)
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
    """A time for people."""
    if not math.isfinite(seconds):
        return "never"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
