"""Plans as they were launched: what every command but `launch` and `plan` knows of a sweep.

`<runs>/sweeps/<sweep>/<plan key>.json` holds the request and the whole plan: names, keys and
configs of all trials and stages. So editing the YAML, or updating this program, changes nothing
for what was launched.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from gigatok.claims.claim import Claim, Looks
from gigatok.config import TrialConfig
from gigatok.config.fields.base import UnixTime
from gigatok.names import FigureChoice
from gigatok.plugins import LOADED, Plugin, owner_of
from gigatok.stages import STAGES
from gigatok.stages.stand_in import stand_in
from orchestration.backends import BACKENDS
from orchestration.launching.sections import References, SectionReader, SectionWriter
from orchestration.plan.graph import Plan, PlannedStage, PlannedTrial
from orchestration.plan.identity import plugins_of
from orchestration.runs.files import write_atomic
from orchestration.runs.logins import keep_login, with_login
from orchestration.runs.records import Record, UsedPlugin, parse_with
from orchestration.runs.state import StageFolder, Store
from orchestration.runs.studies import study_folder
from orchestration.runs.used_plugins import load_used, problems, remember
from orchestration.sweep.definition import Sweep
from orchestration.sweep.formulas.solving import Solved
from orchestration.sweep.grid.expansion import Dropped, Expansion, Trial
from orchestration.sweep.search.block import Search
from orchestration.sweep.search.recorded import read_recorded, scale_with_defaults
from orchestration.tracking.shipping import default_uri

FORMAT = 2
"""Raised when a record of this version could not be read by the code before, or the reverse."""
TRIAL = "trial"
"""Kind of a trial's config; that of a stage's is the stage."""
# The head is read without parsing: a record of another format need not be valid JSON for this
# code. Bytes, because the hash is of bytes.
_HEAD = re.compile(rb'\{"format":(\d+),"sha256":"([0-9a-f]{64})","plan":')


class LaunchRequest(Record):
    """Request of a user, recorded so that `resume` asks for the same.

    Fields with a description are options of `launch`; their help is the description.
    """

    sweep: str
    origin: str | None = None
    """The sweep's file, seen from the runs directory; see `studies`."""
    scale: str | None = None
    overrides: tuple[str, ...] = ()
    backend: str = Field("local", description=f"One of: {', '.join(BACKENDS)}.")
    jobs: int | None = Field(None, description="Stages at a time; default: by cores.")
    profile: Path | None = Field(None, description="YAML: what stages ask of the cluster.")
    gpus_per_stage: int | None = Field(
        None, ge=1, description="GPUs of a stage that can share its work, a process on each."
    )
    ray_address: str | None = Field(
        None, description="A running Ray cluster; default: the profile's."
    )
    # Recorded without its login, as `storage` is; see `logins`.
    tracking_uri: str | None = Field(
        None, description="MLflow; default: mlflow.db in the runs directory."
    )
    storage: str | None = Field(
        None, description="Of a search: Optuna's URL; default: a file in the runs."
    )
    max_gpu_hours: float | None = Field(
        None, ge=0, description="Refuse to spend more; core hours without GPU."
    )
    max_disk: float | None = Field(None, ge=0, description="Refuse to fill more, in GiB.")
    ignore_gates: bool = Field(False, description="Start larger models whatever smaller ones did.")
    send_patch: bool = True
    """True if uncommitted changes of the code go to MLflow."""

    @field_validator("profile")
    @classmethod
    def _absolute(cls, profile: Path | None) -> Path | None:
        """Keep the profile findable: `resume` may run in another folder."""
        return profile and profile.absolute()

    def store_uri(self, store: Store) -> str:
        """Say where MLflow keeps the runs, with the login that it needs."""
        return with_login(store, self.tracking_uri or default_uri(store))

    def without_logins(self, store: Store) -> LaunchRequest:
        """Keep passwords where only the user reads them, and give the rest for the record."""
        update = {name: keep_login(store, getattr(self, name)) for name in _WITH_LOGIN}
        return self.model_copy(update=update)


_WITH_LOGIN = ("tracking_uri", "storage")


class LaunchedStage(Record):
    """Stage of a launched plan."""

    stage: str
    version: int
    key: str
    readable: str
    inputs: dict[str, str]


class Assignment(Record):
    """Values of a launched trial; `config` refers to the table of sections."""

    key: str
    config: References
    axes: dict[str, Any]
    solved: tuple[Solved, ...] = ()
    derived: dict[str, Any] = Field(default_factory=dict)


class LaunchedSweep(Record):
    """Sweep as it was written, and its cells that are no trials."""

    source: str
    paper: str
    scale_description: str
    axes: dict[str, tuple[Any, ...]]
    zip: tuple[dict[str, tuple[Any, ...]], ...]
    exclude: tuple[dict[str, Any], ...]
    include: tuple[dict[str, tuple[Any, ...]], ...]
    set: dict[str, Any]
    overrides: dict[str, Any]
    seeds: tuple[int, ...]
    stages: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    looks: Looks | None = None
    figure: FigureChoice = FigureChoice()
    excluded: tuple[dict[str, Any], ...] = ()
    dropped: tuple[Dropped, ...] = ()
    repeated: tuple[dict[str, Any], ...] = ()


class LaunchedSearch(Record):
    """Parts of a sweep and of its scale that give a suggestion its meaning."""

    parts: dict[str, Any]
    scale: dict[str, Any]


class LaunchedValues(Record):
    """Values of a launched plan: everything that is needed to run it.

    Attributes:
        assignments: by name of the trial.
        configs: key of a stage -> its config, which refers to `sections`.
        sections: each distinct value of a config, once.
        fields: `trial` or name of a stage -> names of the fields of its config.
        sweep: as it was written.
        search: None where the trials are all there are.
    """

    assignments: dict[str, Assignment]
    configs: dict[str, References]
    sections: tuple[Any, ...]
    fields: dict[str, tuple[str, ...]]
    sweep: LaunchedSweep
    search: LaunchedSearch | None = None


class LaunchedPlan(Record):
    """Plan as it was launched.

    Attributes:
        trials: name -> stage -> key.
        pruned: trials that a search has given up -> why.
        plugins: everything that the sweep names, and installed ones that a stage is made of.
        is_search: the trials are those that were asked for so far.
        values_json: `LaunchedValues` as text: most commands need names and keys only, and reading
            the rest would take them as long again.
    """

    sweep: str
    scale: str
    question: str
    key: str
    launched: UnixTime
    request: LaunchRequest
    trials: dict[str, dict[str, str]]
    stages: dict[str, LaunchedStage]
    pruned: dict[str, str] = Field(default_factory=dict)
    plugins: tuple[UsedPlugin, ...] = ()
    is_search: bool
    # JSON text within JSON: written and hashed together with the rest, and parsed only by
    # `values`.
    values_json: str

    def values(self) -> LaunchedValues:
        """Read the values of trials and stages."""
        return LaunchedValues.model_validate_json(self.values_json)

    def stages_of(self, trial: str) -> dict[str, str]:
        """Map the stages of a trial to their keys.

        Raises:
            ValueError: no such trial.
        """
        if trial not in self.trials:
            raise ValueError(f"no trial {trial!r}; trials: {', '.join(self.trials)}")
        return self.trials[trial]

    def folders(self, store: Store) -> dict[str, StageFolder]:
        """Map the key of every stage to its folder."""
        return store.folders((s.stage, key, s.readable) for key, s in self.stages.items())


# From a plan to its record


def record_launch(
    plan: Plan,
    store: Store,
    request: LaunchRequest,
    launched: float | None = None,
    pruned: Mapping[str, str] | None = None,
) -> None:
    """Remember a plan as the newest of its sweep.

    Args:
        plan: all that is needed to run it is recorded.
        store: the runs directory.
        request: as the user made it; its passwords are kept apart.
        launched: UNIX seconds; None: now. A search that goes on keeps its first time.
        pruned: trials that a search has given up -> why.
    """
    record = as_launched(plan, request.without_logins(store), launched, pruned)
    used = tuple(remember(plugin, store) for plugin in _plugins(plan))
    record = record.model_copy(update={"plugins": used})
    text = sealed(record.model_dump_json())
    # Whole and atomically, however many trials a search has: a kill leaves the record before.
    file = record_file(store, plan.sweep.name, plan.key)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text)


def record_file(store: Store, sweep: str, plan_key: str) -> Path:
    """Return the file that a launched plan is recorded in."""
    return study_folder(store, sweep) / f"{plan_key}.json"


def as_launched(
    plan: Plan,
    request: LaunchRequest,
    launched: float | None = None,
    pruned: Mapping[str, str] | None = None,
) -> LaunchedPlan:
    """Describe a plan that is launched now, or was at a time in UNIX seconds."""
    return LaunchedPlan(
        sweep=plan.sweep.name,
        scale=plan.sweep.scale,
        question=plan.sweep.question,
        key=plan.key,
        # The newest launch is found by the time of its file; this one is for people, and for the
        # policies: failures from before it do not count.
        launched=launched or time.time(),
        request=request,
        trials={trial.trial.name: dict(trial.stages) for trial in plan.trials},
        stages={key: _stage(stage) for key, stage in plan.stages.items()},
        pruned=dict(pruned or {}),
        is_search=plan.sweep.search is not None,
        values_json=_values(plan).model_dump_json(),
    )


def _plugins(plan: Plan) -> list[Plugin]:
    """List the plug-ins of a plan: a metric's or a figure's is in no stage's key."""
    used = (plugins_of(STAGES[stage.stage], stage.config) for stage in plan.stages.values())
    # Sections that no stage reads are in the record nevertheless.
    added = (owner_of("section", name) for t in plan.trials for name in t.trial.config.added)
    found = {*plan.sweep.plugins, *chain.from_iterable(used), *added} if LOADED else set()
    return sorted((p for p in found if p is not None), key=lambda plugin: plugin.name)


def _stage(stage: PlannedStage) -> LaunchedStage:
    return LaunchedStage(**{name: getattr(stage, name) for name in LaunchedStage.model_fields})


def _values(plan: Plan) -> LaunchedValues:
    search = plan.sweep.search
    # A search may give a plug-in's section in some trials only.
    added = (name for trial in plan.trials for name in trial.trial.config.added)
    sections = SectionWriter({TRIAL: tuple(dict.fromkeys([*TrialConfig.model_fields, *added]))})
    return LaunchedValues(
        assignments={trial.trial.name: _assignment(trial, sections) for trial in plan.trials},
        configs={k: sections.write(one.stage, one.config) for k, one in plan.stages.items()},
        sections=tuple(sections.table),
        fields=sections.fields,
        sweep=_written(plan),
        search=None if search is None else _search(search),
    )


def _assignment(planned: PlannedTrial, sections: SectionWriter) -> Assignment:
    trial = planned.trial
    return Assignment(
        key=planned.key,
        config=sections.write(TRIAL, trial.config),
        axes=dict(trial.axes),
        solved=tuple(Solved(s.key, s.value, s.made, s.target) for s in trial.solved),
        derived=dict(trial.derived),
    )


# Taken by name from both classes: a field that is added to both is recorded without a change here.
_FACTS = tuple(LaunchedSweep.model_fields.keys() & {field.name for field in fields(Sweep)})
"""Fields of a sweep that its record takes over as they are."""


def _written(plan: Plan) -> LaunchedSweep:
    return LaunchedSweep(
        **{name: getattr(plan.sweep, name) for name in _FACTS},
        excluded=tuple(map(dict, plan.excluded)),
        dropped=plan.dropped,
        repeated=tuple(map(dict, plan.repeated)),
    )


def _search(search: Search) -> LaunchedSearch:
    return LaunchedSearch(parts=dict(search.written), scale=scale_with_defaults(search))


# From the record to the plan


def sealed(body: str) -> str:
    """Put the format and the hash of its text before the JSON of a plan."""
    # A flipped bit in a config would run another stage under the same key: hence the hash.
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"format":{FORMAT},"sha256":"{digest}","plan":{body}}}'


def parse_launch(path: Path) -> LaunchedPlan | None:
    """Read the record of a plan, and load its plug-ins; None where there is no such file.

    Where a plug-in is missing, its stages have stand-ins: what was run can still be shown.

    Raises:
        UnreadableRecord: the file is damaged, or of another version of this program.
    """
    launched = parse_with(path, _parse)
    if launched is not None:
        # The record lies in `<runs>/sweeps/<sweep>/`.
        _know_stages(launched, Store(path.parents[2]))
    return launched


def _know_stages(launched: LaunchedPlan, store: Store) -> None:
    """Load the plug-ins of a plan, and put stand-ins where they are missing."""
    problems(launched.plugins, store)
    for stage in launched.stages.values():  # each comes after its inputs
        if stage.stage not in STAGES:
            stand_in(stage.stage, stage.version, stage.inputs)


def _parse(content: bytes) -> LaunchedPlan:
    head = _HEAD.match(content)
    # The format before the hash: an older version may have hashed something else.
    if head is None or int(head[1]) != FORMAT:
        raise ValueError(
            "it is damaged, or another version of this program wrote it; launch the sweep again "
            "to write it: complete stages are reused"
        )
    # Without the last brace, which closes the head.
    body = content[head.end() : -1]
    if hashlib.sha256(body).hexdigest().encode() != head[2]:
        raise ValueError("its content has changed since it was written; launch the sweep again")
    launched = LaunchedPlan.model_validate_json(body)
    # Here and not at the first use: every command looks stages up by kind, and would fail with a
    # KeyError. Those of a missing plug-in get stand-ins.
    unknown = sorted({stage.stage for stage in launched.stages.values()} - STAGES.keys())
    if unknown and not launched.plugins:
        raise ValueError(f"stage {unknown[0]!r} is unknown here")
    return launched


def restored(launched: LaunchedPlan, store: Store) -> Plan:
    """Build the plan again from its record alone: the keys and configs that were launched.

    Raises:
        PluginError: a plug-in is missing here, or is another version than was launched.
        ValueError: this code does not take a config that was launched.
    """
    load_used(launched.plugins, store)
    try:
        values = launched.values()
        sections = SectionReader(values.sections, values.fields)
        configs = {
            name: sections.read(TRIAL, TrialConfig, one.config)
            for name, one in values.assignments.items()
        }
        trials = tuple(
            _planned_trial(name, configs[name], launched.trials[name], one)
            for name, one in values.assignments.items()
        )
        # Everything that depends on this code happens within `try`: pydantic's ValidationError is
        # a ValueError, and the user is told to launch again instead of seeing a traceback.
        sweep = _sweep(launched, values, store, trials)
        stages = _planned_stages(launched, values, configs, sections)
    except ValueError as error:
        raise ValueError(
            f"{launched.sweep}: this code does not take plan {launched.key} as it was launched: "
            f"{error}; launch the sweep again"
        ) from error
    written = values.sweep
    rest = (written.excluded, launched.key, written.dropped, written.repeated)
    return Plan(sweep, trials, stages, *rest)


def _planned_trial(
    name: str, config: TrialConfig, stages: Mapping[str, str], one: Assignment
) -> PlannedTrial:
    return PlannedTrial(Trial(name, config, one.axes, one.solved, one.derived), stages, one.key)


def _planned_stages(
    launched: LaunchedPlan,
    values: LaunchedValues,
    configs: Mapping[str, TrialConfig],
    sections: SectionReader,
) -> dict[str, PlannedStage]:
    # Costs look at the whole config of the first trial that has a stage.
    # As in `make_plan`: the order of trials decides, and it is kept in the record.
    first: dict[str, TrialConfig] = {}
    for name, stages in launched.trials.items():
        for key in stages.values():
            first.setdefault(key, configs[name])
    return {
        key: PlannedStage(
            one.stage,
            key,
            sections.read(one.stage, STAGES[one.stage].config, values.configs[key]),
            one.inputs,
            one.readable,
            first[key],
            one.version,
        )
        for key, one in launched.stages.items()
    }


def _sweep(
    launched: LaunchedPlan, values: LaunchedValues, store: Store, trials: tuple[PlannedTrial, ...]
) -> Sweep:
    request, search = launched.request, None
    expansion = Expansion(tuple(planned.trial for planned in trials), ())
    if values.search is not None:
        parts, scale = values.search.parts, values.search.scale
        # From the record and not from the YAML, which may have been edited: suggestions must keep
        # their meaning.
        search = read_recorded(parts, launched.scale, scale, request.overrides)
        expansion = search.example([])
    # Relative to the runs directory, so that it can be moved together with the sweeps.
    origin = request.sweep if request.origin is None else store.root.resolve() / request.origin
    return Sweep(
        name=launched.sweep,
        path=Path(origin).resolve(),
        question=launched.question,
        scale=launched.scale,
        own_scale=None,
        **{name: getattr(values.sweep, name) for name in _FACTS},
        plugins=load_used(launched.plugins, store),
        search=search,
        expansion=expansion,
    )
