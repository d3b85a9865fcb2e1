"""Plans as they were launched: what `status`, `logs`, `resume` and later launches know of a sweep.

`<runs>/sweeps/<sweep>/<plan key>.json` is the plan and what was asked for; the folder
`<plan key>/` beside it keeps the YAML of the sweep and of its scales, so that editing them later
changes nothing for what was launched.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Self

import typer
from pydantic import Field, model_validator

from gigatok.files.durable import write_durably
from gigatok.names import study_name
from gigatok.stages import STAGES
from orchestration.exits import fail
from orchestration.forecast.budget import newest_refusal
from orchestration.plan.graph import Plan
from orchestration.runs.files import set_aside, write_atomic
from orchestration.runs.logins import keep_login, with_login
from orchestration.runs.records import Record, UnixTime, parse_record, read_record
from orchestration.runs.state import StageFolder, Store
from orchestration.runs.studies import launched_names, refuse_namesake, study_folder
from orchestration.sweep.definition import load_sweep
from orchestration.tracking.shipping import default_uri
from orchestration.yaml.source import SweepError

Scale = Annotated[str | None, typer.Option(help="Of the launch; default: the newest.")]
"""Option of the commands that look at, or steer, what was launched."""


class LaunchedStage(Record):
    """A stage of a launched plan."""

    stage: str
    key: str
    readable: str
    inputs: dict[str, str]


class LaunchRequest(Record):
    """What the user asked for, so that `resume` asks for the same."""

    sweep: str
    origin: str | None = None
    """The sweep's file, seen from the runs directory; see `studies`."""
    scale: str | None = None
    overrides: list[str] = Field(default_factory=list)
    backend: str = "local"
    jobs: int | None = None
    profile: str | None = None
    """An absolute path."""
    ray_address: str | None = None
    tracking_uri: str | None = None
    """None: the database in the runs directory. Recorded without its login; see `logins`."""
    ignore_gates: bool = False
    storage: str | None = None
    """Of a search; None: as the sweep says. Recorded without its login, too."""
    max_gpu_hours: float | None = None
    max_disk: float | None = None
    send_patch: bool = True
    """Whether uncommitted changes of the code go to MLflow."""

    def store_uri(self, store: Store) -> str:
        """Say where MLflow keeps the runs, with the login that it needs."""
        return with_login(store, self.tracking_uri or default_uri(store))

    def without_logins(self, store: Store) -> LaunchRequest:
        """Keep passwords where only the user reads them, and give the rest for the record."""
        update = {name: keep_login(store, getattr(self, name)) for name in _WITH_LOGIN}
        return self.model_copy(update=update)


_WITH_LOGIN = ("tracking_uri", "storage")


class LaunchedPlan(Record):
    """A plan as it was launched.

    Attributes:
        trials: name -> stage -> key.
        pruned: trials that a search has given up -> why.
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

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        """Refuse a damaged record here, rather than by a KeyError in one of its many readers."""
        named = {key for stages in self.trials.values() for key in stages.values()}
        named |= {key for stage in self.stages.values() for key in stage.inputs.values()}
        if missing := sorted(named - self.stages.keys()):
            raise ValueError(f"stage {missing[0]} is named and not described")
        kinds = {stage.stage for stage in self.stages.values()}
        if unknown := sorted(kinds - STAGES.keys()):
            raise ValueError(f"stage {unknown[0]!r} is unknown here")
        if strangers := sorted(self.pruned.keys() - self.trials.keys()):
            raise ValueError(f"trial {strangers[0]!r} is pruned and not described")
        return self

    def folders(self, store: Store) -> dict[str, StageFolder]:
        """Key -> folder of every stage."""
        return store.folders((s.stage, key, s.readable) for key, s in self.stages.items())


def record_launch(
    plan: Plan,
    store: Store,
    request: LaunchRequest,
    launched: float | None = None,
    pruned: Mapping[str, str] | None = None,
) -> None:
    """Remember a plan as the newest of its sweep; launched now, unless a search has gone on."""
    record = as_launched(plan, request.without_logins(store), launched)
    record = record.model_copy(update={"pruned": dict(pruned or {})})
    folder = study_folder(store, plan.sweep.name)
    _keep_sources(plan, folder / plan.key, request.overrides)
    write_atomic(folder / f"{plan.key}.json", record.model_dump_json())


def as_launched(plan: Plan, request: LaunchRequest, launched: float | None = None) -> LaunchedPlan:
    """The record of a plan that is launched now, or was at a time in UNIX seconds."""
    return LaunchedPlan(
        sweep=plan.sweep.name,
        scale=plan.sweep.scale,
        question=plan.sweep.question,
        key=plan.key,
        launched=launched or time.time(),
        request=request,
        trials={trial.trial.name: dict(trial.stages) for trial in plan.trials},
        stages={
            key: LaunchedStage(
                stage=stage.stage,
                key=key,
                readable=stage.readable,
                inputs=dict(stage.inputs),
            )
            for key, stage in plan.stages.items()
        },
    )


def newest_launch(store: Store, sweep: str, scale: str | None = None) -> LaunchedPlan:
    """The plan of a sweep, given by its name or its file, that was launched last.

    Args:
        store: the runs directory.
        sweep: name or file.
        scale: of the launch; None: any.

    Raises:
        ValueError: the sweep was never launched into this runs directory, or not at this scale,
            or what was launched under this name is another file.
    """
    name = study_name(sweep)
    launches = list(all_launches(store, name)) if scale else all_launches(store, name)
    newest = next((one for one in launches if scale in (None, one.scale)), None)
    if newest is None and (found := list(dict.fromkeys(one.scale for one in launches))):
        scales = ", ".join(found)
        raise ValueError(f"{name}: never launched at scale {scale!r} into {store.root}; {scales}")
    if newest is not None and Path(sweep).is_file():
        refuse_namesake(store, Path(sweep), newest.request.origin)
    if newest is None:
        if damaged := _files(store, name):
            raise ValueError(
                f"{name}: no record of its launches can be read ({damaged[0]}); launch the sweep "
                "again to write it: complete stages are reused"
            )
        known = launched_names(store) or ["none"]
        raise ValueError(
            f"{sweep}: never launched into {store.root} (launched there: {', '.join(known)}); "
            "launch it first, or point --runs-dir at another folder" + _refused(store, name)
        )
    return newest


def _refused(store: Store, sweep: str) -> str:
    """Why the newest launch was refused, where one was."""
    refusal = newest_refusal(store, sweep)
    return "" if refusal is None else f". It was refused: {'; '.join(refusal.reasons)}"


def other_scales(store: Store, launched: LaunchedPlan) -> list[str]:
    """Scales at which the sweep of a launch was launched as well, the newest first."""
    scales = (one.scale for one in all_launches(store, launched.sweep))
    return [scale for scale in dict.fromkeys(scales) if scale != launched.scale]


def find_launch(store: Store, sweep: str, scale: str | None = None) -> LaunchedPlan:
    """The newest launch of a sweep; exits with 2 and a message where there is none."""
    try:
        return newest_launch(store, sweep, scale)
    except ValueError as error:
        fail(error)


def all_launches(store: Store, sweep: str) -> Iterator[LaunchedPlan]:
    """Read every plan of a sweep that was launched, the newest first."""
    for file in _files(store, sweep):
        if (plan := read_record(file, LaunchedPlan)) is not None:
            yield plan


def newest_launches(store: Store) -> Iterator[LaunchedPlan]:
    """The newest launch of every sweep."""
    for sweep in launched_names(store):
        yield from islice(all_launches(store, sweep), 1)


def launched_keys(store: Store) -> set[str]:
    """Collect the keys of the stages of every plan that was ever launched here.

    Raises:
        UnreadableRecord: one of the plans cannot be read, so that any stage may be of it.
    """
    files = (file for sweep in launched_names(store) for file in _files(store, sweep))
    plans = (parse_record(file, LaunchedPlan) for file in files)
    return {key for plan in plans if plan is not None for key in plan.stages}


def kept_sweep(launched: LaunchedPlan, store: Store) -> Path:
    """The YAML of a sweep as it was when the plan was launched."""
    return study_folder(store, launched.sweep) / launched.key / f"{launched.sweep}.yaml"


def _keep_sources(plan: Plan, folder: Path, overrides: Sequence[str]) -> None:
    """Copy the YAML files that a plan was made from; those of an earlier launch stay.

    Copies that have been damaged since are set aside: `resume` could not use them.
    """
    if os.path.lexists(folder) and not _is_loadable(plan, folder, overrides):
        set_aside(folder)
    scales = plan.sweep.scales_dir.glob("*.yaml")
    sources = {folder / "scales" / file.name: file for file in scales}
    sources[folder / f"{plan.sweep.name}.yaml"] = plan.sweep.path
    for kept, file in sources.items():
        if not kept.exists():
            # Durably: `resume` reads the copy, and nobody would write it again.
            write_durably(kept, partial(shutil.copy, file))


def _is_loadable(plan: Plan, folder: Path, overrides: Sequence[str]) -> bool:
    try:
        load_sweep(folder / f"{plan.sweep.name}.yaml", plan.sweep.scale, overrides)
    except SweepError:
        return False
    return True


def _files(store: Store, sweep: str) -> list[Path]:
    """List the records of a sweep's plans, readable or not, the newest first."""
    files = study_folder(store, sweep).glob("*.json")
    # Of a link its own time: what it leads to may be gone.
    return sorted(files, key=lambda file: file.lstat().st_mtime, reverse=True)
