"""Plans on a cluster, on paper: how long they take, what failures cost, how often to save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from gigatok.stages import STAGES
from orchestration.costs.calibration import load_calibration
from orchestration.costs.cost import Cost, predict
from orchestration.execution.progress import Progress, survey
from orchestration.execution.scheduler import ORDERS, Scheduler
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
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store

HOUR = 3600.0
STATE_COPIES = 4.0
"""A checkpoint of training in units of the model that it leaves: weights, Adam's two moments and
the moving average."""


@dataclass(frozen=True)
class Scenario:
    """Plan on a cluster that fails now and then.

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
        # The scheduler of real launches with a simulated clock: what is found here holds there.
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


@dataclass(frozen=True)
class PaperRun:
    """Simulation of a plan under every order.

    Attributes:
        scenario: what was simulated.
        costs: what stages are predicted to need.
        teraflops: of a device, where times do not rest on the calibration.
        intervals: between checkpoints.
        outcomes: order -> what came of it.
    """

    scenario: Scenario
    costs: Mapping[str, Cost]
    teraflops: float | None
    intervals: Intervals
    outcomes: Mapping[str, Outcome]


def simulate_plan(
    plan: Plan,
    store: Store,
    cluster: Cluster,
    profile: Profile,
    *,
    checkpoint_minutes: float | None = None,
    teraflops: float | None = None,
    seed: int = 0,
) -> PaperRun:
    """Run a plan on paper, under every order.

    Args:
        plan: what is to be run; complete stages of it are reused.
        store: the runs directory with the calibration.
        cluster: devices, their failures, and what saving costs.
        profile: how many devices stages ask for, and how often what is tried again.
        checkpoint_minutes: of work between checkpoints; None: what costs least device time.
        teraflops: of a device, instead of the calibration.
        seed: of the failures.
    """
    calibration = load_calibration(store)
    costs = predict(plan, calibration, calibration.newest_site)
    attempts: dict[Blow, int] = {
        "node_lost": profile.attempts("node_lost"),
        "preempted": profile.attempts("preempted"),
    }
    works = stage_works(plan, costs, profile, teraflops)
    scenario = Scenario(survey(plan, store), works, cluster, attempts, seed)
    intervals = choose_interval(scenario, profile.ready_order, checkpoint_minutes)
    outcomes = {order: scenario.run(order, intervals.used) for order in ORDERS}
    return PaperRun(scenario, costs, teraflops, intervals, outcomes)


# What goes in


def stage_works(
    plan: Plan, costs: Mapping[str, Cost], profile: Profile, teraflops: float | None
) -> dict[str, Work]:
    """Predict what each stage takes."""
    works = {}
    for key, stage in plan.stages.items():
        cost, processes = costs[key], profile.request(stage.stage).processes
        seconds = cost.ordering_seconds
        if teraflops is not None and cost.flops is not None:
            seconds = cost.flops / (teraflops * 1e12 * processes)
        output = cost.work.output_bytes if STAGES[stage.stage].parallel else None
        state = None if output is None else STATE_COPIES * output
        works[key] = Work(seconds, processes, state)
    return works


def choose_interval(scenario: Scenario, order: str, minutes: float | None) -> Intervals:
    """Take the interval that is asked for, or the one that costs least device time."""
    cluster = scenario.cluster
    saving = [w for w in scenario.works.values() if w.checkpoint_bytes is not None]
    weight = sum(work.seconds for work in saving)
    # Without failures a checkpoint is never read: none is best.
    if not cluster.failure_rate or not weight:
        return Intervals(math.inf if minutes is None else minutes * 60)
    pause = cluster.checkpoint_seconds
    if cluster.bandwidth is not None:
        total = sum(work.seconds * (work.checkpoint_bytes or 0.0) for work in saving)
        # A mean over the work: long stages write most checkpoints.
        pause += total / weight / cluster.bandwidth
    devices = sum(work.seconds * work.devices for work in saving) / weight
    # A stage fails when any of its devices does, so that rates add up.
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
    """Measure seconds until half of the trials have all results; None: they never have."""
    # Complete before the start: at second 0.
    ends = outcome.ends | dict.fromkeys(scenario.progress.reused, 0.0)
    trials = scenario.progress.plan.trials
    done = [max(ends.get(key, math.inf) for key in trial.stages.values()) for trial in trials]
    middle = median(done)
    return middle if math.isfinite(middle) else None


MEASURED = ("makespan", "useful", "writing", "lost", "idle", "complete", "failed")
"""Fields of an outcome that its JSON data take over."""


def simulation_json(found: PaperRun) -> dict[str, Any]:
    """Convert a simulation into JSON data; times in seconds."""
    scenario, intervals, outcomes = found.scenario, found.intervals, found.outcomes
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
                **{name: getattr(outcome, name) for name in MEASURED},
                "half_done": half_done(scenario, outcome),
                "failures": outcome.blows["node_lost"],
                "preemptions": outcome.blows["preempted"],
            }
            for order, outcome in outcomes.items()
        },
    }
