"""The state of a launched sweep, as `status` shows it and other commands use it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestration.backends.detached.queued import Queued, queued_stages
from orchestration.costs.accuracy import PredictionCheck, accuracy_json, compare_all
from orchestration.costs.calibration import load_calibration
from orchestration.costs.cost import predict
from orchestration.execution.display import seconds_left
from orchestration.execution.scheduler import Graph, pass_failure_downstream
from orchestration.forecast.budget import Refusal, newest_refusal
from orchestration.forecast.forecast import Forecast, forecast, look_at
from orchestration.launching.history import all_launches, newest_launches, other_scales
from orchestration.launching.launched import LaunchedPlan, LaunchedStage, restored
from orchestration.runs.leases import LEASE_SECONDS, Lease
from orchestration.runs.state import StageFolder, State, Store
from orchestration.tracking.ledger import Skipped
from orchestration.tracking.shipping import all_skipped

MOST_FORECAST = 2000
"""Stages of a plan whose end `status` forecasts: larger plans would take it seconds."""
Folders = Mapping[str, StageFolder]
Json = dict[str, Any]


@dataclass(frozen=True)
class StageStatus:
    """State of one stage, and the reason for it.

    Attributes:
        attempts: how often it was started.
        host: where it runs, or ran last; None before.
        running: what the worker last reported; empty unless it runs.
        job: the scheduler's handle; None where there is none.
        why: why it failed, waits or was stopped; None where nothing is to be said.
        held: whether a gate keeps it from starting.
    """

    planned: LaunchedStage
    folder: StageFolder
    state: State
    attempts: int
    host: str | None = None
    running: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None
    why: str | None = None
    held: bool = False


@dataclass(frozen=True, repr=False)
class SweepStatus:
    """A launched plan and its stages by key.

    Attributes:
        orphans: stages of earlier launches only.
        refusal: a launch of the sweep since then that was refused.
    """

    launched: LaunchedPlan
    stages: Mapping[str, StageStatus]
    orphans: Mapping[str, StageStatus]
    forecast: Forecast | None = None
    """None: a search, or a plan too large to say at once."""
    unforeseen: str | None = None
    """Reason why there is no forecast although the stages are known."""
    refusal: Refusal | None = None
    other_scales: Sequence[str] = ()
    """Scales at which the sweep was launched, too, and which are not shown."""
    skipped: Mapping[str, Skipped] = field(default_factory=dict)
    """Stage key -> what it reported that MLflow will never have."""

    def __repr__(self) -> str:
        counts = counts_text(self.states.values())
        lines = [f"{self.launched.sweep} at scale {self.launched.scale}: {counts}"]
        lines += [
            f"  {stage.planned.stage} {stage.planned.readable}: {stage.state.lower()}, {stage.why}"
            for stage in self.stages.values()
            if stage.why is not None
        ]
        return "\n".join(lines)

    @property
    def store(self) -> Store:
        """Return the runs directory."""
        return next(iter(self.stages.values())).folder.store

    @property
    def states(self) -> dict[str, State]:
        """Return the states by key."""
        return {key: stage.state for key, stage in self.stages.items()}

    @property
    def finished(self) -> bool:
        """Tell whether nothing runs or waits, but for what gates hold."""
        open_ = (stage for stage in self.stages.values() if not stage.held)
        return not any(stage.state in ("RUNNING", "WAITING") for stage in open_)


def look(store: Store, launched: LaunchedPlan) -> SweepStatus:
    """Look at the stage folders and the queue of a launched plan."""
    # Only names and states are read from the record; its values are parsed for the forecast alone.
    folders = launched.folders(store)
    states = stage_states(launched, folders)
    # Running stages as well: status names the job of each.
    waiting = [key for key, state in states.items() if state in ("WAITING", "RUNNING")]
    queued = queued_stages(store, waiting)
    pruned = why_pruned(launched)
    stages = {
        key: stage_status(launched.stages[key], folders[key], state, queued.get(key))
        for key, state in states.items()
    }
    for key in (key for key, state in states.items() if state == "PRUNED"):
        stages[key] = replace(stages[key], why=pruned[key])
    refusal = newest_refusal(store, launched.sweep, launched.launched)
    # The states are worth showing even where costs cannot be predicted.
    outlooked, unforeseen = None, None
    try:
        outlooked = outlook(store, launched, stages)
    except ValueError as error:  # Such as an adopted checkpoint that was moved since.
        unforeseen = str(error)
    skipped = all_skipped(store, launched.request.tracking_uri)
    return SweepStatus(
        launched,
        stages,
        orphans(store, launched),
        outlooked,
        unforeseen,
        refusal,
        other_scales(store, launched),
        {key: skipped[key] for key in stages if key in skipped},
    )


def outlook(
    store: Store, launched: LaunchedPlan, stages: Mapping[str, StageStatus]
) -> Forecast | None:
    """Forecast what remains, by the newest records of what stages take."""
    if len(stages) > MOST_FORECAST or launched.is_search:
        return None  # a search: nobody knows which trials it will ask for
    plan = restored(launched, store)
    calibration = load_calibration(store)
    parts = {}
    for key, cost in predict(plan, calibration, calibration.newest_site).items():
        mine = stages[key]
        kind = mine.planned.stage
        parts[key] = look_at(mine.folder, kind, mine.state, cost, resting=mine.held)
    graph = Graph({key: tuple(stage.inputs.values()) for key, stage in plan.stages.items()})
    running = sum(stage.state == "RUNNING" for stage in stages.values())
    # Without `--jobs`, what runs now is the best guess of how many run at a time.
    slots = launched.request.jobs or max(1, running)
    return forecast(graph, [trial.stages.values() for trial in plan.trials], parts, slots)


def stage_states(launched: LaunchedPlan, folders: Folders) -> dict[str, State]:
    """Read the state of every stage; failures are passed downstream."""
    states: dict[str, State] = {key: folders[key].state() for key in launched.stages}
    # A stage that completed before its trial was pruned stays complete.
    states |= {key: "PRUNED" for key in why_pruned(launched) if states[key] == "WAITING"}
    inputs = {key: stage.inputs.values() for key, stage in launched.stages.items()}
    return states | dict.fromkeys(pass_failure_downstream(inputs, states), "UPSTREAM_FAILED")


def why_pruned(launched: LaunchedPlan) -> dict[str, str]:
    """Map stages that only pruned trials of a search need to the reason."""
    kept = {
        key
        for name, stages in launched.trials.items()
        if name not in launched.pruned
        for key in stages.values()
    }
    return {
        key: f"pruned by {why}" if why else "pruned"
        for name, why in launched.pruned.items()
        for key in launched.trials[name].values()
        if key not in kept
    }


def stage_status(
    planned: LaunchedStage, folder: StageFolder, state: State, queued: Queued | None = None
) -> StageStatus:
    """Look at one stage that is in a state.

    Args:
        planned: the stage.
        folder: where it is or will be.
        state: of all stages together, since failures are passed downstream.
        queued: its job; None: it was handed to no scheduler.
    """
    attempts = count_attempts(folder)
    job = None if queued is None else queued.job
    # No record is read: most stages of a large sweep are complete, and status must answer at once.
    if state == "COMPLETE":
        return StageStatus(planned, folder, state, attempts)
    # The order of these cases is the order of causes: who cancelled a stage matters more than how
    # it then ended.
    host, running, why = None, {}, None
    if state == "RUNNING" and (lease := folder.lease()) is not None:
        host, running, why = lease.host, lease.progress, _silent(lease)
    elif attempts and (last := folder.last_attempt()) is not None:
        host = last.host
    if state == "UPSTREAM_FAILED":
        why = None
    elif (who := folder.cancelled_by()) is not None:
        why = f"cancelled by {who}" + (", stopping" if state == "RUNNING" else "")
    elif state == "FAILED":
        failure = folder.failure()
        why = failure.message if failure else None
    elif state == "WAITING" and (reason := folder.held()) is not None:
        return StageStatus(planned, folder, state, attempts, host, job=job, why=reason, held=True)
    elif state == "WAITING":
        why = queued.why if queued is not None else _stopped(folder)
    return StageStatus(planned, folder, state, attempts, host, running, job, why)


def _silent(lease: Lease) -> str | None:
    """Say that a worker that cannot be seen from here gave no sign of life; None: it did."""
    if not lease.is_suspect():
        return None
    # The clock of the other host may be ahead: only the size of the difference says something.
    minutes = abs(time.time() - lease.heartbeat) / 60
    return (
        f"no sign of life for {minutes:.0f} min, as clocks go; a launch takes it over after "
        f"{LEASE_SECONDS:.0f} s of silence"
    )


def _stopped(folder: StageFolder) -> str | None:
    """Say how a stage that waits was stopped before; None: it was not."""
    counts = folder.tries().counts
    if counts:
        return "to be tried again: " + ", ".join(f"{n} × {kind}" for kind, n in counts.items())
    step = folder.checkpoint_step()
    return f"stopped, goes on from step {step}" if step else None


def count_attempts(folder: StageFolder) -> int:
    """Count how often a stage was started, by the names of its records: reading all is slow."""
    try:
        names = os.listdir(folder.path / "attempts")
    # The folder of a stage that was never started does not exist.
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return sum(name.endswith(".json") and not name.startswith(".") for name in names)


def orphans(store: Store, launched: LaunchedPlan) -> dict[str, StageStatus]:
    """Find stages that were launched earlier, at the same scale, and are in no newest plan.

    Taking a trial out of a YAML cancels nothing, and deletes nothing.
    """
    planned: dict[str, LaunchedStage] = {}
    for earlier in all_launches(store, launched.sweep):
        # Launches at other scales are sweeps of their own; status names them apart.
        if earlier.scale == launched.scale:
            planned |= {key: s for key, s in earlier.stages.items() if key not in launched.stages}
    # A stage that the newest launch of any sweep still names is nobody's orphan.
    for other in newest_launches(store) if planned else ():
        planned = {key: stage for key, stage in planned.items() if key not in other.stages}
    folders = store.folders((s.stage, key, s.readable) for key, s in planned.items())
    return {
        key: stage_status(stage, folders[key], folders[key].state())
        for key, stage in planned.items()
        if folders[key].path.is_dir()
    }


# Showing


def counts_text(states: Iterable[State]) -> str:
    """Count the stages in each state."""
    return ", ".join(f"{count} {state.lower()}" for state, count in Counter(states).items())


def comparisons(found: SweepStatus) -> list[PredictionCheck]:
    """Compare predicted with actual costs of complete stages."""
    return compare_all(s.folder for s in found.stages.values() if s.state == "COMPLETE")


def status_json(found: SweepStatus) -> Json:
    """Convert a status into JSON data."""
    launched = found.launched
    compared = {one.key: accuracy_json(one) for one in comparisons(found)}
    return {
        "sweep": launched.sweep,
        "scale": launched.scale,
        "other_scales": list(found.other_scales),
        "plan": launched.key,
        "backend": launched.request.backend,
        "trials": launched.trials,
        "forecast": None if found.forecast is None else asdict(found.forecast),
        "stages": {key: _stage_json(stage) for key, stage in found.stages.items()},
        "skipped": {key: skipped.count for key, skipped in found.skipped.items()},
        "refused": None if found.refusal is None else found.refusal.reasons,
        "accuracy": compared,
        "orphaned": {key: _stage_json(stage) for key, stage in found.orphans.items()},
    }


def _stage_json(stage: StageStatus) -> Json:
    return {
        "stage": stage.planned.stage,
        "readable": stage.planned.readable,
        "state": stage.state,
        "folder": str(stage.folder.path),
        "attempts": stage.attempts,
        "host": stage.host,
        "done": stage.running.get("done"),
        "total": stage.running.get("total"),
        "unit": stage.running.get("unit"),
        "seconds_left": seconds_left(stage.running),
        "job": stage.job,
        "why": stage.why,
        "held": stage.held,
    }
