"""`explain` and `diff`: why a stage runs, is reused or waits, and what sets two stages apart.

python -m orchestration explain decoder_scaling S-B          every stage of a trial
python -m orchestration explain decoder_scaling S-B train_generator
python -m orchestration diff S-S S-B                         trials, keys or folders
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gigatok.data.fingerprints import FINGERPRINTS
from gigatok.names import study_name
from gigatok.stages import STAGES
from orchestration.commands.sweep_status import look
from orchestration.exits import fail
from orchestration.launching.launched import (
    LaunchedPlan,
    LaunchedStage,
    LaunchRequest,
    all_launches,
    as_launched,
    kept_sweep,
    newest_launch,
)
from orchestration.plan.graph import Plan, PlannedStage, make_plan
from orchestration.runs.provenance import code_version, imported_state
from orchestration.runs.stage_records import Attempt, Spec
from orchestration.runs.state import StageFolder, Store
from orchestration.runs.studies import launched_names
from orchestration.sweep.definition import expand, load_sweep
from orchestration.yaml.source import did_you_mean, listed

RunsDir = Annotated[Path, typer.Option(help="Where everything is kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
STYLES = {
    "reused": "green",
    "complete": "green",
    "will run": "cyan",
    "running": "cyan",
    "blocked": "red",
    "failed": "bold red",
    "held": "yellow",
}
ENVIRONMENT = ("host", "device", "gpus", "cpu_count", "platform", "python")
CODE = ("git_sha", "git_dirty")
MISSING = "–"


# explain


@dataclass(frozen=True)
class Explanation:
    """What becomes of a stage at the next launch, and because of what.

    Attributes:
        verdict: one of `STYLES`.
        because: reasons, the first is the decisive one.
    """

    trial: str
    stage: str
    key: str
    readable: str
    verdict: str
    because: list[str] = field(default_factory=list)


def explain(
    sweep: str,
    what: Annotated[
        str | None, typer.Argument(help="A trial, a stage, or the start of a key; default: all.")
    ] = None,
    stage: Annotated[str | None, typer.Argument(help="Of the trial; default: all.")] = None,
    scale: Annotated[str | None, typer.Option(help="Default: as launched last.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say of each stage what became or will become of it, and because of what."""
    store = Store(runs_dir)
    try:
        plan = asked_plan(store, sweep, scale, set_ or [])
        launched = as_launched(plan, LaunchRequest(sweep=sweep))
        chosen = choose(launched, what, stage)
    except ValueError as error:
        fail(error)
    found = explanations(store, plan, launched, chosen)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    console = Console(markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for head in ("trial", "stage", "", "because"):
        table.add_column(head, overflow="fold")
    for one in found:
        verdict = Text(one.verdict, style=STYLES[one.verdict])
        table.add_row(one.trial, one.stage, verdict, "\n".join(one.because))
    console.print(table)


def asked_plan(store: Store, sweep: str, scale: str | None, overrides: list[str]) -> Plan:
    """The plan as launched last; of the YAML as it is, where never launched or asked otherwise."""
    newest = next(all_launches(store, study_name(sweep)), None)
    if newest is not None and scale is None and not overrides:
        newest = newest_launch(store, sweep)
        kept = kept_sweep(newest, store)
        loaded = load_sweep(kept, newest.scale, newest.request.overrides)
    else:
        loaded = load_sweep(sweep, scale, overrides)
    return make_plan(loaded, expand(loaded))


def choose(
    launched: LaunchedPlan, what: str | None, stage: str | None
) -> list[tuple[str, LaunchedStage]]:
    """The stages that are meant, each with the first trial that has it.

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
        order = list(STAGES)
        return sorted(stages.values(), key=lambda pair: order.index(pair[1].stage))
    names = [*launched.trials, *dict.fromkeys(s.stage for s in launched.stages.values())]
    raise ValueError(
        f"{launched.sweep}: nothing is called {' '.join(filter(None, (what, stage)))!r}; trials "
        f"and stages: {listed(names[:20])}; or the start of a key{did_you_mean(what, names)}"
    )


def explanations(
    store: Store, plan: Plan, launched: LaunchedPlan, chosen: Iterable[tuple[str, LaunchedStage]]
) -> list[Explanation]:
    """What becomes of stages, and why."""
    status = look(store, launched).stages
    now = code_version(imported_state())
    births = _births(store)
    found = []
    for trial, stage in chosen:
        mine = status[stage.key]
        waits = [k for k in stage.inputs.values() if status[k].state != "COMPLETE"]
        names = [f"{status[k].planned.stage} {status[k].planned.readable}" for k in waits]
        verdict, because = "will run", list[str]()
        if mine.state == "COMPLETE":
            verdict, because = "reused", _made(mine.folder, births, launched, now)
        elif mine.state == "RUNNING":
            verdict, because = "running", [f"on {mine.host}, attempt {mine.attempts}"]
        elif mine.held:
            verdict, because = "held", [str(mine.why)]
        elif mine.state == "FAILED":
            verdict, because = "failed", [mine.why or "no reason was left"]
        elif mine.state == "UPSTREAM_FAILED":
            bad = [n for k, n in zip(waits, names, strict=True) if "FAILED" in status[k].state]
            verdict, because = "blocked", [f"{name} failed" for name in bad]
        else:
            because = [f"waits for {name}" for name in names] or ["nobody has run this key yet"]
            because += [mine.why] if mine.why else []
            because += nearest_lines(store, plan.stages[stage.key])
        found.append(Explanation(trial, stage.stage, stage.key, stage.readable, verdict, because))
    return found


def _births(store: Store) -> list[LaunchedPlan]:
    """Every launch, the oldest first."""
    plans = [plan for sweep in launched_names(store) for plan in all_launches(store, sweep)]
    return sorted(plans, key=lambda plan: plan.launched)


def _made(
    folder: StageFolder, launches: Iterable[LaunchedPlan], asked: LaunchedPlan, now: str
) -> list[str]:
    """Who made a complete stage, when and with which code."""
    done, attempt = folder.done(), _last(folder)
    if done is None:
        return [f"{folder.done_file} cannot be read; the next launch runs the stage again"]
    key = folder.name.rpartition("-")[2]
    made = datetime.fromtimestamp(done.finished).isoformat(" ", "minutes")
    where = f" on {attempt.host}" if attempt else ""
    lines = [f"complete since {made}{where}, {done.seconds:.0f} s, attempt {done.attempt}"]
    # A launch is recorded again when it is repeated: the first plan that has the key is its own.
    owner = next((plan for plan in launches if key in plan.stages), None)
    if owner is not None and owner.key != asked.key:
        lines.append(f"made for {owner.sweep} at scale {owner.scale} (plan {owner.key})")
    code = code_version(attempt.provenance) if attempt else "unknown code"
    if code != now:
        lines.append(f"computed by code {code}; this is {now}")
    return lines


def nearest_lines(store: Store, stage: PlannedStage) -> list[str]:
    """What sets a stage that must run apart from the most similar complete one."""
    config = stage.config.model_dump(mode="json")
    mine = key_parts(STAGES[stage.stage].version, config, stage.inputs)
    others = [other for other in store.index(stage.stage).values() if other.is_complete()]
    parts = [(other, differences(mine, spec_parts(other))) for other in others]
    if not parts:
        return [f"no {stage.stage} is complete in {store.root}"]
    nearest, rows = min(parts, key=lambda pair: len(pair[1]))
    shown = ", ".join(f"{name} {a} instead of {b}" for name, (a, b) in list(rows.items())[:4])
    more = f", {len(rows) - 4} more" if len(rows) > 4 else ""
    return [f"nearest complete is {nearest.name}; here {shown}{more}"]


# diff


def diff(
    a: Annotated[str, typer.Argument(help="A trial, the start of a key, or a stage's folder.")],
    b: Annotated[str, typer.Argument(help="What it is compared with.")],
    sweep: Annotated[str | None, typer.Option(help="The sweep that trials are of.")] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show in what two trials or stages differ: config, data, code, environment, results."""
    store = Store(runs_dir)
    try:
        ours, theirs = find_stages(store, a, sweep), find_stages(store, b, sweep)
    except ValueError as error:
        fail(error)
    found = compare(ours, theirs)
    if as_json:
        print(json.dumps({"a": a, "b": b, "stages": found}))
        return
    console = Console(markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for head in ("stage", "what", a, b):
        table.add_column(head, overflow="fold")
    for stage, rows in found.items():
        for name, (mine, other) in rows.items():
            table.add_row(stage, name, str(mine), str(other))
            stage = ""
    same = [stage for stage, rows in found.items() if not rows]
    if table.row_count:
        console.print(table)
    if same:
        console.print(f"the same in everything that is recorded: {', '.join(same)}", style="dim")


Rows = dict[str, tuple[Any, Any]]


def compare(ours: Mapping[str, StageFolder], theirs: Mapping[str, StageFolder]) -> dict[str, Rows]:
    """Stage -> what differs -> the two values; two stages of different kinds are one row each."""
    if len(ours) == len(theirs) == 1 and set(ours) != set(theirs):
        (one,), (two,) = ours, theirs
        return {f"{one} / {two}": differences(facts(ours[one]), facts(theirs[two]))}
    found: dict[str, Rows] = {}
    for stage in STAGES:
        if stage in ours and stage in theirs:
            mine, other = ours[stage], theirs[stage]
            same = mine.path == other.path
            found[stage] = {} if same else differences(facts(mine), facts(other))
        elif stage in ours or stage in theirs:
            here = "there" if stage in ours else MISSING
            found[stage] = {"stage": (here, MISSING if here == "there" else "there")}
    return found


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Rows:
    """Facts that are not the same; a missing one shows as a dash."""
    names = dict.fromkeys([*mine, *theirs])
    return {
        name: (mine.get(name, MISSING), theirs.get(name, MISSING))
        for name in names
        if mine.get(name, MISSING) != theirs.get(name, MISSING)
    }


def spec_parts(folder: StageFolder) -> dict[str, Any]:
    """Say what the key of a stage that was made is made of, flat; empty: its spec is lost."""
    spec = folder.known_spec()
    if spec is None:
        return {}
    inputs = {name: where.rpartition("-")[2] for name, where in spec.inputs.items()}
    return key_parts(spec.version, _with_new_options(spec), inputs)


def _with_new_options(spec: Spec) -> Mapping[str, Any]:
    """Add options that are newer than a record at their defaults, which keys leave out."""
    try:
        return STAGES[spec.stage].config.model_validate(spec.config).model_dump(mode="json")
    except (KeyError, ValueError):  # of a stage, or a setting, that this code does not know
        return spec.config


def key_parts(
    version: int, config: Mapping[str, Any], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """What a stage's key is made of, flat: version, config, keys of inputs, data's fingerprint."""
    read = {f"input {name}": key for name, key in inputs.items()}
    parts = {"version": version, **dict(_flat("", dict(config))), **read}
    for name, value in config.items():
        if isinstance(value, dict) and {"name", "split"} <= value.keys():
            parts[f"data {name}"] = FINGERPRINTS.get(str(value["name"]), MISSING)
    return parts


def facts(folder: StageFolder) -> dict[str, Any]:
    """Everything recorded of a stage: its key's parts, code, environment, results."""
    attempt, done = _last(folder), folder.done()
    provenance = attempt.provenance if attempt else {}
    found = {"key": folder.name.rpartition("-")[2], **spec_parts(folder)}
    found |= {f"code {name}": provenance[name] for name in CODE if name in provenance}
    found |= {name: provenance[name] for name in ENVIRONMENT if name in provenance}
    packages = provenance.get("packages") or {}
    found |= {f"package {name}": version for name, version in packages.items()}
    if attempt and attempt.micro_batch is not None:
        found["micro_batch"] = attempt.micro_batch
    found["state"] = folder.state()
    if done is not None:
        found |= {f"result {name}": value for name, value in done.metrics.items()}
    return found


def find_stages(store: Store, name: str, sweep: str | None) -> dict[str, StageFolder]:
    """The stage or stages that are meant: a folder, the start of a key, or a trial's name.

    Raises:
        ValueError: nothing, or more than one thing, is called so.
    """
    path = Path(name)
    if (path / "spec.json").is_file():
        return {path.parent.name: StageFolder(path)}
    by_key = [
        (stage, folder)
        for stage in STAGES
        for key, folder in store.index(stage).items()
        if key.startswith(name)
    ]
    if len(by_key) == 1:
        return dict(by_key)
    trials: dict[str, tuple[LaunchedPlan, Mapping[str, str]]] = {}
    for plan in _births(store):
        if sweep is None or study_name(sweep) == plan.sweep:
            trials |= {trial: (plan, stages) for trial, stages in plan.trials.items()}
    if name in trials:
        plan, stages = trials[name]
        folders = plan.folders(store)
        return {stage: folders[key] for stage, key in stages.items()}
    if by_key:
        raise ValueError(f"{name}: {len(by_key)} keys begin so; give more of it")
    raise ValueError(
        f"{name}: no trial, key or stage folder in {store.root}; trials: "
        f"{listed(list(trials)[:20])}{did_you_mean(name, trials)}"
    )


def _last(folder: StageFolder) -> Attempt | None:
    attempts = folder.attempts()
    return attempts[-1] if attempts else None


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, part)
    else:
        yield prefix, value
