"""Reasons why stages will run, are reused, wait or failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gigatok.names import study_name
from gigatok.stages import STAGES
from orchestration.launching.history import all_launches, newest_launch, oldest_first
from orchestration.launching.launched import (
    LaunchedPlan,
    LaunchedStage,
    LaunchRequest,
    as_launched,
    restored,
)
from orchestration.plan.graph import Plan, PlannedStage, make_plan
from orchestration.runs.provenance import code_version, imported_state
from orchestration.runs.state import StageFolder, Store
from orchestration.study.differences import differences, key_parts, spec_parts
from orchestration.study.status import StageStatus, look
from orchestration.sweep.definition import expand, load_sweep
from orchestration.yaml.source import did_you_mean, listed

Fate = Literal["reused", "will run", "running", "blocked", "failed", "held"]


@dataclass(frozen=True)
class Explanation:
    """Fate of a stage at the next launch.

    Attributes:
        because: reasons, the first is the decisive one.
    """

    trial: str
    stage: str
    key: str
    readable: str
    verdict: Fate
    because: list[str] = field(default_factory=list)


def explain_stages(
    store: Store,
    sweep: str,
    scale: str | None = None,
    overrides: Iterable[str] = (),
    what: str | None = None,
    stage: str | None = None,
) -> list[Explanation]:
    """Say of stages what became or will become of them, and because of what.

    Args:
        store: the runs directory.
        sweep: name or file.
        scale: of the plan; None: as launched last.
        overrides: texts of `--set`.
        what: a trial, a stage, or the start of a key; None: all stages.
        stage: of the trial; None: all.

    Raises:
        ValueError: there is no such sweep, or nothing in it is called so.
    """
    plan, launched = asked_plan(store, sweep, scale, list(overrides))
    chosen = choose(launched, what, stage)
    status = look(store, launched).stages
    now = code_version(imported_state())
    # Read once: each of the stages asks who launched it first.
    births = list(oldest_first(store))
    found = []
    for trial, one in chosen:
        verdict, because = _judge(status[one.key], status)
        if verdict == "reused":
            because = _made(status[one.key].folder, births, launched, now)
        elif verdict == "will run":
            because += nearest_lines(store, plan.stages[one.key])
        found.append(Explanation(trial, one.stage, one.key, one.readable, verdict, because))
    return found


def _judge(mine: StageStatus, status: Mapping[str, StageStatus]) -> tuple[Fate, list[str]]:
    """Judge a stage by its state and the states of its inputs."""
    waits = [status[k] for k in mine.planned.inputs.values() if status[k].state != "COMPLETE"]
    names = [f"{one.planned.stage} {one.planned.readable}" for one in waits]
    if mine.state == "COMPLETE":
        return "reused", []
    if mine.state == "RUNNING":
        return "running", [f"on {mine.host}, attempt {mine.attempts}"]
    if mine.held:
        return "held", [str(mine.why)]
    if mine.state == "FAILED":
        return "failed", [mine.why or "no reason was left"]
    if mine.state == "UPSTREAM_FAILED":
        bad = [n for one, n in zip(waits, names, strict=True) if "FAILED" in one.state]
        return "blocked", [f"{name} failed" for name in bad]
    because = [f"waits for {name}" for name in names] or ["nobody has run this key yet"]
    return "will run", because + ([mine.why] if mine.why else [])


def asked_plan(
    store: Store, sweep: str, scale: str | None, overrides: list[str]
) -> tuple[Plan, LaunchedPlan]:
    """Find the plan as launched last; plan the YAML where never launched or asked otherwise."""
    # With a scale or overrides the user asks what a launch would do now, so the YAML is planned.
    newest = next(all_launches(store, study_name(sweep)), None)
    if newest is not None and scale is None and not overrides:
        # Read again, with the check that a file of this name is the one that was launched.
        launched = newest_launch(store, sweep)
        return restored(launched, store), launched
    loaded = load_sweep(sweep, scale, overrides)
    plan = make_plan(loaded, expand(loaded))
    # As if it were launched now: a plan that never was has states too, of stages that it shares.
    return plan, as_launched(plan, LaunchRequest(sweep=sweep))


def choose(
    launched: LaunchedPlan, what: str | None, stage: str | None
) -> list[tuple[str, LaunchedStage]]:
    """Choose the stages that are meant, each with the first trial that has it.

    Raises:
        ValueError: nothing is called so.
    """
    stages: dict[str, tuple[str, LaunchedStage]] = {}
    for trial, mine in launched.trials.items():
        for name, key in mine.items():
            by = (trial, name, key[: len(what)] if what else None)
            if (what is None or what in by) and stage in (None, name):
                stages.setdefault(key, (trial, launched.stages[key]))
    if stages:
        # Causes come before effects: in the order of the graph, not of trials.
        order = list(STAGES)
        return sorted(stages.values(), key=lambda pair: order.index(pair[1].stage))
    names = [*launched.trials, *dict.fromkeys(s.stage for s in launched.stages.values())]
    raise ValueError(
        f"{launched.sweep}: nothing is called {' '.join(filter(None, (what, stage)))!r}; trials "
        f"and stages: {listed(names[:20])}; or the start of a key{did_you_mean(what, names)}"
    )


def _made(
    folder: StageFolder, launches: Iterable[LaunchedPlan], asked: LaunchedPlan, now: str
) -> list[str]:
    """Say who made a complete stage, when and with which code."""
    done, attempt = folder.done(), folder.last_attempt()
    if done is None:
        return [f"{folder.done_file} cannot be read; the next launch runs the stage again"]
    made = datetime.fromtimestamp(done.finished).isoformat(" ", "minutes")
    where = f" on {attempt.host}" if attempt else ""
    lines = [f"complete since {made}{where}, {done.seconds:.0f} s, attempt {done.attempt}"]
    # A launch is recorded again when it is repeated: the first plan that has the key is its own.
    owner = next((plan for plan in launches if folder.key in plan.stages), None)
    if owner is not None and owner.key != asked.key:
        lines.append(f"made for {owner.sweep} at scale {owner.scale} (plan {owner.key})")
    code = code_version(attempt.provenance) if attempt else "unknown code"
    if code != now:
        lines.append(f"computed by code {code}; this is {now}")
    return lines


def nearest_lines(store: Store, stage: PlannedStage) -> list[str]:
    """Say what sets a stage that must run apart from the most similar complete one."""
    config = stage.config.model_dump(mode="json")
    # From the plan, while the others come from their records: both go through JSON, so that tuples
    # and lists compare equal.
    mine = key_parts(STAGES[stage.stage].version, config, stage.inputs)
    others = [other for other in store.index(stage.stage).values() if other.is_complete()]
    parts = [(other, differences(mine, spec_parts(other))) for other in others]
    if not parts:
        return [f"no {stage.stage} is complete in {store.root}"]
    # By the count of differing settings: a change of one setting is the usual question.
    nearest, rows = min(parts, key=lambda pair: len(pair[1]))
    shown = ", ".join(f"{name} {a} instead of {b}" for name, (a, b) in list(rows.items())[:4])
    more = f", {len(rows) - 4} more" if len(rows) > 4 else ""
    return [f"nearest complete is {nearest.name}; here {shown}{more}"]
