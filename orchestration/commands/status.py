"""`python -m orchestration status SWEEP`: what every stage of a sweep is doing, and why.

Read from the stage folders, and where a sweep was queued on a cluster from one question to its
scheduler. Complete stages cost a look at their folder only, so large sweeps answer at once.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gigatok.stages import STAGES
from orchestration.cluster.queued import Queued, queued_stages
from orchestration.costs.accuracy import (
    Comparison,
    accuracy_json,
    accuracy_line,
    accuracy_table,
    compare_all,
)
from orchestration.costs.budget import Refusal, newest_refusal
from orchestration.costs.calibration import load_calibration
from orchestration.costs.cost import predict
from orchestration.costs.forecast import Forecast, forecast, forecast_line, look_at
from orchestration.display import SYMBOLS, progress_details, seconds_left, stages_of, states_table
from orchestration.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED
from orchestration.launched import (
    LaunchedPlan,
    LaunchedStage,
    all_launches,
    find_launch,
    kept_sweep,
    newest_launches,
)
from orchestration.leases import LEASE_SECONDS, Lease
from orchestration.plan import make_plan
from orchestration.scheduler import Graph, pass_failure_downstream
from orchestration.state import StageFolder, State, Store
from orchestration.sweep import expand, load_sweep

WATCH_SECONDS = 2.0
MOST_FORECAST = 2000
"""Stages of a plan whose end `status` foretells: it makes the plan again for that."""
MOST_TRIALS, MOST_STAGES = 40, 15
"""Rows of the tables; `--json` has them all."""
OTHER_LINES = 11
"""Of the screen, at most: question, heads, blank lines, costs, forecast, counts, "… more"."""

Folders = Mapping[str, StageFolder]
Json = dict[str, Any]


@dataclass(frozen=True)
class StageStatus:
    """What one stage is doing.

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


@dataclass(frozen=True)
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
    """None: a search, a plan too large to say at once, or this code would make another one."""
    unforeseen: str | None = None
    """What keeps the forecast from being made, although the stages are known."""
    refusal: Refusal | None = None

    @property
    def states(self) -> dict[str, State]:
        """State by key."""
        return {key: stage.state for key, stage in self.stages.items()}

    @property
    def finished(self) -> bool:
        """Whether nothing runs or waits, but for what gates hold."""
        open_ = (stage for stage in self.stages.values() if not stage.held)
        return not any(stage.state in ("RUNNING", "WAITING") for stage in open_)


def status(
    sweep: str,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Until it has finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
) -> None:
    """Show the state of every stage of the newest launch of a sweep."""
    store = Store(runs_dir)
    found = look(store, find_launch(store, sweep))
    if as_json:
        print(json.dumps(status_json(found)))
        return
    console = Console(markup=False, highlight=False)
    if not watch:
        console.print(render(found, console.size))
        return
    try:
        found = _watch(store, found, console)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(exit_code(found))


def exit_code(found: SweepStatus) -> int:
    """That of a launch which ended like this."""
    failures = [stage.folder.failure() for stage in found.stages.values()]
    kinds = {failure.kind for failure in failures if failure is not None}
    if kinds == {"cancelled"}:
        return EXIT_INTERRUPTED
    if "FAILED" in found.states.values():
        return EXIT_FAILED
    return EXIT_REFUSED if any(stage.held for stage in found.stages.values()) else 0


def _watch(store: Store, found: SweepStatus, console: Console) -> SweepStatus:
    with Live(render(found, console.size, fit=True), console=console, auto_refresh=False) as live:
        while not found.finished:
            time.sleep(WATCH_SECONDS)
            found = look(store, find_launch(store, found.launched.sweep))
            live.update(render(found, console.size, fit=True), refresh=True)
    return found


# Looking


def look(store: Store, launched: LaunchedPlan) -> SweepStatus:
    """The status of a launched plan."""
    folders = launched.folders(store)
    states = stage_states(launched, folders)
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
    outlooked, unforeseen = None, None
    try:
        outlooked = outlook(store, launched, stages)
    except ValueError as error:  # Such as an adopted checkpoint that was moved since.
        unforeseen = str(error)
    orphaned = orphans(store, launched)
    return SweepStatus(launched, stages, orphaned, outlooked, unforeseen, refusal)


def outlook(
    store: Store, launched: LaunchedPlan, stages: Mapping[str, StageStatus]
) -> Forecast | None:
    """What is spent and what remains, by the newest records of what stages take."""
    if len(stages) > MOST_FORECAST or not kept_sweep(launched, store).is_file():
        return None
    sweep = load_sweep(kept_sweep(launched, store), launched.scale, launched.request.overrides)
    plan = make_plan(sweep, expand(sweep))
    if plan.key != launched.key or plan.stages.keys() != launched.stages.keys():
        return None  # the second: a search has asked for trials since
    calibration = load_calibration(store)
    parts = {}
    for key, cost in predict(plan, calibration, calibration.newest_site).items():
        mine = stages[key]
        part = look_at(mine.folder, mine.state, cost.seconds, resting=mine.held)
        kind, weight = mine.planned.stage, cost.ordering_seconds
        parts[key] = replace(part, kind=kind, weight=weight)
    graph = Graph({key: tuple(stage.inputs.values()) for key, stage in plan.stages.items()})
    running = sum(stage.state == "RUNNING" for stage in stages.values())
    slots = launched.request.jobs or max(1, running)
    return forecast(graph, [trial.stages.values() for trial in plan.trials], parts, slots)


def stage_states(launched: LaunchedPlan, folders: Folders) -> dict[str, State]:
    """The state of every stage, failures passed downstream."""
    states: dict[str, State] = {key: folders[key].state() for key in launched.stages}
    states |= {key: "PRUNED" for key in why_pruned(launched) if states[key] == "WAITING"}
    inputs = {key: stage.inputs.values() for key, stage in launched.stages.items()}
    return states | dict.fromkeys(pass_failure_downstream(inputs, states), "UPSTREAM_FAILED")


def why_pruned(launched: LaunchedPlan) -> dict[str, str]:
    """Key -> why, of the stages that only pruned trials of a search need."""
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
    """The status of one stage in a state."""
    attempts = count_attempts(folder)
    job = None if queued is None else queued.job
    if state == "COMPLETE":
        return StageStatus(planned, folder, state, attempts)
    host, running, why = None, {}, None
    if state == "RUNNING" and (lease := folder.lease()) is not None:
        host, running, why = lease.host, lease.progress, _silent(lease)
    elif attempts and (known := folder.attempts()):
        host = known[-1].host
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
    minutes = abs(time.time() - lease.heartbeat) / 60
    return (
        f"no sign of life for {minutes:.0f} min, as clocks go; a launch takes it over after "
        f"{LEASE_SECONDS:.0f} s of silence"
    )


def _stopped(folder: StageFolder) -> str | None:
    """How a stage that waits was stopped before; None: it was not."""
    counts = folder.tries().counts
    if counts:
        return "to be tried again: " + ", ".join(f"{n} × {kind}" for kind, n in counts.items())
    step = folder.checkpoint_step()
    return f"stopped, goes on from step {step}" if step else None


def count_attempts(folder: StageFolder) -> int:
    """Count how often a stage was started, by the names of its records: reading all is slow."""
    try:
        names = os.listdir(folder.path / "attempts")
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return sum(name.endswith(".json") and not name.startswith(".") for name in names)


def orphans(store: Store, launched: LaunchedPlan) -> dict[str, StageStatus]:
    """Stages that were launched earlier, at the same scale, and are in no sweep's newest plan.

    Taking a trial out of a YAML cancels nothing, and deletes nothing.
    """
    planned: dict[str, LaunchedStage] = {}
    for earlier in all_launches(store, launched.sweep):
        if earlier.scale == launched.scale:
            planned |= {key: s for key, s in earlier.stages.items() if key not in launched.stages}
    for other in newest_launches(store) if planned else ():
        planned = {key: stage for key, stage in planned.items() if key not in other.stages}
    folders = store.folders((s.stage, key, s.readable) for key, s in planned.items())
    return {
        key: stage_status(stage, folders[key], folders[key].state())
        for key, stage in planned.items()
        if folders[key].path.is_dir()
    }


# Showing


def render(found: SweepStatus, size: ConsoleDimensions, *, fit: bool = False) -> RenderableType:
    """Trials x stages, then what runs, waits or has failed and why, then counts.

    Args:
        found: what to show.
        size: of the terminal.
        fit: leave out what does not fit on its screen.
    """
    launched, states = found.launched, found.states
    busy = [s for s in found.stages.values() if s.state in ("RUNNING", "FAILED") or s.why]
    busy.sort(key=lambda s: list(SYMBOLS).index(s.state), reverse=True)
    rows = (
        _rows(found, len(busy), size.height)
        if fit
        else Rows(MOST_TRIALS, MOST_STAGES, MOST_STAGES)
    )
    parts: list[RenderableType] = [
        Text(launched.question, style="bold", no_wrap=fit, overflow="ellipsis"),
        states_table(launched.trials, states, size.width, most_rows=rows.trials),
    ]
    if busy:
        trials = trial_names(launched)
        parts += [Text(), stages_table(busy, trials, rows.stages)]
        parts.append(reasons_table(busy, trials, rows.reasons, one_line=fit))
    compared = comparisons(found)
    if compared:
        parts += [Text(), Text(accuracy_line(compared))]
        if not fit and any(one.predicted is not None for one in compared):
            parts.append(accuracy_table(compared))
    counts = Counter(states.values())
    text = ", ".join(f"{count} {state.lower()}" for state, count in counts.items())
    held = sum(stage.held for stage in found.stages.values())
    if held:
        text += f" ({held} held by gates; `python -m orchestration resume {launched.sweep}"
        text += " --ignore-gates` lets them pass)"
    parts.append(Text())
    if found.unforeseen is not None:
        parts.append(Text(f"no forecast: {found.unforeseen}", style="yellow"))
    if found.forecast is not None:
        line = forecast_line(found.forecast)
        parts.append(Text(line, style="dim", no_wrap=fit, overflow="ellipsis"))
    parts.append(Text(text))
    if found.refusal is not None:
        said = "; ".join(found.refusal.reasons)
        parts.append(Text(f"the newest launch was refused: {said}", style="red"))
    if found.orphans:
        parts.append(Text(orphans_line(found), style="yellow"))
    return Group(*parts)


def comparisons(found: SweepStatus) -> list[Comparison]:
    """Predicted against actual, of the stages that are complete."""
    return compare_all(s.folder for s in found.stages.values() if s.state == "COMPLETE")


@dataclass(frozen=True)
class Rows:
    """How many of each are shown."""

    trials: int
    stages: int
    reasons: int


def _rows(found: SweepStatus, busy: int, height: int) -> Rows:
    """What fits on a screen: half of it for the trials, and the rest as it is needed."""
    heads = len(stages_of(found.launched.trials)) + 1
    left = height - heads - OTHER_LINES - (2 if found.orphans else 0)
    trials = min(len(found.launched.trials), max(3, left // 2))
    stages = min(busy, MOST_STAGES, max(3, (left - trials) * 2 // 3))
    return Rows(trials, stages, max(1, left - trials - stages))


def trial_names(launched: LaunchedPlan) -> dict[str, str]:
    """Key -> the trial that a stage is of, or how many share it."""
    trials: dict[str, list[str]] = {key: [] for key in launched.stages}
    for name, stages in launched.trials.items():
        for key in stages.values():
            trials[key].append(name)
    return {key: of[0] if len(of) == 1 else f"{len(of)} trials" for key, of in trials.items()}


def stages_table(stages: list[StageStatus], trials: Mapping[str, str], most: int) -> Table:
    """One row per stage, the first ones if there are more."""
    table = Table(box=None, pad_edge=False)
    for head in ("stage", "trial", "host", "progress", "left", "tries"):
        table.add_column(head, justify="right" if head in ("left", "tries") else "left")
    for stage in stages[:most]:
        symbol, style = SYMBOLS[stage.state]
        left = seconds_left(stage.running)
        table.add_row(
            Text(f"{symbol} {STAGES[stage.planned.stage].label}", style=style),
            Text(trials[stage.planned.key]),
            Text(stage.host or (f"job {stage.job}" if stage.job else "")),
            Text(", ".join(progress_details(stage.running)[:1])),
            "" if left is None else str(timedelta(seconds=round(left))),
            str(stage.attempts),
        )
    if len(stages) > most:
        table.add_row(f"… {len(stages) - most} more", style="dim")
    for column in table.columns:
        column.no_wrap = True
    return table


def reasons_table(
    stages: list[StageStatus], trials: Mapping[str, str], most: int, *, one_line: bool = False
) -> Table:
    """Why stages failed or wait, each reason once."""
    alike: dict[str, list[StageStatus]] = {}
    for stage in stages:
        if stage.why is not None:
            alike.setdefault(stage.why, []).append(stage)
    table = Table.grid(padding=(0, 1))
    for why, group in list(alike.items())[:most]:
        first = group[0]
        name = f"{STAGES[first.planned.stage].label} of {trials[first.planned.key]}"
        others = f" and {len(group) - 1} more" if len(group) > 1 else ""
        reason = Text(why, no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
        table.add_row(Text(f"{name}{others}:", style=SYMBOLS[first.state][1]), reason)
    return table


def orphans_line(found: SweepStatus) -> str:
    """How many stages of earlier launches there are, and what may be done about them."""
    counts = Counter(stage.state for stage in found.orphans.values())
    text = ", ".join(f"{count} {state.lower()}" for state, count in counts.items())
    line = f"orphaned, of earlier launches and not in this plan: {text}"
    if counts["RUNNING"]:
        line += f"; `python -m orchestration cancel {found.launched.sweep} --orphaned` stops them"
    return line


def status_json(found: SweepStatus) -> Json:
    """Status as data."""
    launched = found.launched
    compared = {one.key: accuracy_json(one) for one in comparisons(found)}
    return {
        "sweep": launched.sweep,
        "scale": launched.scale,
        "plan": launched.key,
        "backend": launched.request.backend,
        "trials": launched.trials,
        "forecast": None if found.forecast is None else asdict(found.forecast),
        "stages": {key: _stage_json(stage) for key, stage in found.stages.items()},
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
