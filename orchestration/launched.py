"""Plans as they were launched: what `status`, `logs`, `resume` and later launches know of a sweep.

`<runs>/sweeps/<sweep>/<plan key>.json` is the plan and what was asked for; the folder
`<plan key>/` beside it keeps the YAML of the sweep and of its scales, so that editing them later
changes nothing for what was launched.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from gigatok.durable import write_durably
from gigatok.names import study_name
from orchestration.costs.budget import newest_refusal
from orchestration.exits import fail
from orchestration.files import write_atomic
from orchestration.logins import keep_login, with_login
from orchestration.plan import Plan
from orchestration.records import Record
from orchestration.state import StageFolder, Store
from orchestration.studies import launched_names, refuse_namesake, study_folder
from orchestration.tracking.shipping import default_uri

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
    launched: float
    request: LaunchRequest
    trials: dict[str, dict[str, str]]
    stages: dict[str, LaunchedStage]
    pruned: dict[str, str] = Field(default_factory=dict)

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
    _keep_sources(plan, folder / plan.key)
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
    """Every plan of a sweep that was launched, the newest first."""
    files = study_folder(store, sweep).glob("*.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        yield LaunchedPlan.model_validate_json(file.read_bytes())


def newest_launches(store: Store) -> Iterator[LaunchedPlan]:
    """The newest launch of every sweep."""
    for sweep in launched_names(store):
        yield from islice(all_launches(store, sweep), 1)


def launched_keys(store: Store) -> set[str]:
    """Keys of the stages of every plan that was ever launched here."""
    sweeps = launched_names(store)
    return {key for sweep in sweeps for plan in all_launches(store, sweep) for key in plan.stages}


def kept_sweep(launched: LaunchedPlan, store: Store) -> Path:
    """The YAML of a sweep as it was when the plan was launched."""
    return study_folder(store, launched.sweep) / launched.key / f"{launched.sweep}.yaml"


def _keep_sources(plan: Plan, folder: Path) -> None:
    """Copy the YAML files that a plan was made from; those of an earlier launch stay."""
    sources = {
        folder / "scales" / file.name: file for file in plan.sweep.scales_dir.glob("*.yaml")
    }
    sources[folder / f"{plan.sweep.name}.yaml"] = plan.sweep.path
    for kept, file in sources.items():
        if not kept.exists():
            # Durably: `resume` reads the copy, and nobody would write it again.
            write_durably(kept, partial(shutil.copy, file))
