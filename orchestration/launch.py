"""`python -m orchestration.launch SWEEP`: from one YAML to a scaling figure.

Exit codes: 0 done, 1 a stage failed, 2 the request was wrong, 3 refused, 130 interrupted and
resumable.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gigatok import names
from orchestration.backends import BACKENDS, connect
from orchestration.backends.base import Backend
from orchestration.execution.inputs import find_inputs
from orchestration.execution.progress import Progress, survey
from orchestration.exits import EXIT_REFUSED, fail
from orchestration.forecast.budget import Budget, record_refusal
from orchestration.forecast.budget import reasons as budget_reasons
from orchestration.forecast.devices import Machines, machines
from orchestration.launching.foreground import (
    Driver,
    check_writable,
    exit_code,
    make_ready,
    report,
    run,
)
from orchestration.launching.launched import LaunchRequest, all_launches, record_launch
from orchestration.launching.preview import plan_json, print_plan
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.holder import tidy
from orchestration.runs.provenance import imported_state
from orchestration.runs.state import Store
from orchestration.runs.studies import origin_of, refuse_namesake
from orchestration.sweep.definition import Sweep, expand, load_sweep
from orchestration.tracking.shipping import Tracking, uri_to_record
from orchestration.tracking.sweep_runs import expectation


def launch(
    sweep: Annotated[str, typer.Argument(help="A sweep's YAML file, or its bare name.")],
    scale: Annotated[str | None, typer.Option(help="smoke, micro, mini, paper, …")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
    backend: Annotated[str, typer.Option(help=f"One of: {', '.join(BACKENDS)}.")] = "local",
    jobs: Annotated[int | None, typer.Option(help="Stages at a time; default: by cores.")] = None,
    profile_file: Annotated[
        Path | None, typer.Option("--profile", help="YAML: what stages ask of the cluster.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; default: the profile's.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow; default: mlflow.db in the runs directory.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Of a search: Optuna's URL; default: a file in the runs.")
    ] = None,
    max_gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Refuse to spend more; core hours without GPU.")
    ] = None,
    max_disk: Annotated[
        float | None, typer.Option(min=0, help="Refuse to fill more, in GiB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Show the cost of every stage, not of every kind.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="On SLURM: stay, and show the sweep until it ends.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="On SLURM: submit without asking.")] = False,
    no_patch: Annotated[
        bool, typer.Option("--no-patch", help="Send no patch of uncommitted changes to MLflow.")
    ] = False,
    ignore_gates: Annotated[
        bool, typer.Option("--ignore-gates", help="Start larger models whatever smaller ones did.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run every stage of a sweep that is not complete yet, then draw its figure."""
    request = LaunchRequest(
        sweep=sweep,
        scale=scale,
        overrides=set_ or [],
        backend=backend,
        jobs=jobs,
        profile=None if profile_file is None else str(profile_file.absolute()),
        ray_address=ray_address,
        tracking_uri=tracking_uri,
        ignore_gates=ignore_gates,
        storage=storage,
        max_gpu_hours=max_gpu_hours,
        max_disk=max_disk,
        send_patch=not no_patch,
    )
    store = Store(runs_dir)
    start(request, store, dry_run=dry_run, stages=stages, watch=watch, yes=yes, as_json=as_json)


def start(
    request: LaunchRequest,
    store: Store,
    *,
    leave: Callable[[Progress], None] = lambda progress: None,
    dry_run: bool = False,
    stages: bool = False,
    watch: bool = False,
    yes: bool = False,
    as_json: bool = False,
) -> None:
    """Do what a user asks for, and exit with the code that says how it went.

    Args:
        request: what to run, where.
        store: the runs directory.
        leave: gives up stages that shall not be run now.
        dry_run: show the plan and return.
        stages: show the cost of every stage, not of every kind.
        watch: where jobs go on without the launcher, stay until they are over.
        yes: queue such jobs without asking.
        as_json: print JSON instead of tables.
    """
    console = Console(stderr=as_json, markup=False, highlight=False)
    try:
        with _no_collector():
            launched = _planned(request, store, leave)
            _show(launched, console, dry_run=dry_run, stages=stages, as_json=as_json)
        if dry_run:
            return
        _make_ready(launched)
        _announce_patch(launched, console)
    except (ValueError, OSError) as error:
        fail(error)
    try:
        manner = _Manner(console, watch=watch, yes=yes, as_json=as_json)
        code = _search(launched, manner) if launched.plan.sweep.search else _run(launched, manner)
    except (ValueError, OSError) as error:
        fail(error)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Launch:
    """A request that was understood, and what it comes to."""

    request: LaunchRequest
    store: Store
    uri: str
    plan: Plan
    progress: Progress
    tracking: Tracking
    profile: Profile
    backend: Backend
    machine: Machines
    refused: list[str]


@dataclass(frozen=True)
class _Manner:
    """How the user wants to follow a launch; see `start`."""

    console: Console
    watch: bool
    yes: bool
    as_json: bool


@contextmanager
def _no_collector() -> Iterator[None]:
    """All that planning makes lives on: looking for garbage in it takes a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _planned(request: LaunchRequest, store: Store, leave: Callable[[Progress], None]) -> _Launch:
    """The graph, what is complete of it, where the rest would run, and what speaks against it."""
    own = {"tracking_uri": uri_to_record(store, request.tracking_uri)}
    request = request.model_copy(update=own)
    uri = request.store_uri(store)
    loaded = load_sweep(request.sweep, request.scale, request.overrides)
    request = _from_one_file(request, store, loaded)
    plan = make_plan(loaded, expand(loaded))
    tracking = Tracking(uri, store, plan, send_patch=request.send_patch)
    profile = _profile(request)
    backend = connect(request.backend, request.jobs, profile, store)
    machine = machines(request.backend, request.jobs, profile)
    progress = survey(plan, store, lambda stage: machine(stage).site)
    leave(progress)
    budget = Budget(max_gpu_hours=request.max_gpu_hours, max_disk=request.max_disk)
    refused = budget_reasons(progress, machine, budget, store.root)
    return _Launch(
        request, store, uri, plan, progress, tracking, profile, backend, machine, refused
    )


def _from_one_file(request: LaunchRequest, store: Store, sweep: Sweep) -> LaunchRequest:
    """The request with its sweep's file, unless another file of that name was launched here."""
    newest = next(all_launches(store, sweep.name), None)
    refuse_namesake(store, sweep.path, None if newest is None else newest.request.origin)
    if request.origin is not None:
        return request  # `resume` launches the copy that was kept
    return request.model_copy(update={"origin": origin_of(store, sweep.path)})


def _profile(request: LaunchRequest) -> Profile:
    profile = load_profile(Path(request.profile) if request.profile else None)
    if request.ray_address is not None:
        profile = profile.model_copy(update={"ray_address": request.ray_address})
    return profile.model_copy(update={"gates": None}) if request.ignore_gates else profile


def _show(
    launched: _Launch, console: Console, *, dry_run: bool, stages: bool, as_json: bool
) -> None:
    """The plan before anything starts; JSON only where nothing will."""
    if not as_json:
        print_plan(console, launched.progress, launched.machine, stages=stages)
    if dry_run and as_json:
        found = plan_json(launched.progress, launched.machine)
        inputs = asdict(find_inputs(launched.progress))
        print(json.dumps({**found, "inputs": inputs, "refused": launched.refused}))
    elif dry_run:
        for line in find_inputs(launched.progress).lines():
            console.print(line, soft_wrap=True, style="red" if line.startswith("not on") else "")
        print_refusal(console, launched.refused)


def _make_ready(launched: _Launch) -> None:
    """Refuse what cannot fit; otherwise fetch what the stages need."""
    plan, store, progress = launched.plan, launched.store, launched.progress
    check_writable(store.root)
    for key in progress.reused:
        tidy(progress.folders[key])
    if launched.refused:
        refuse(plan, store, launched.tracking, launched.refused)
    absent = find_inputs(progress).absent
    if absent and launched.request.backend == "local":  # nodes of a cluster may have more
        raise ValueError(f"not on this machine: {'; '.join(absent)}")
    search = plan.sweep.search
    if search is not None or not progress.finished:
        examples = search.examples() if search else expand(plan.sweep)
        make_ready(make_plan(plan.sweep, examples), progress, launched.backend, launched.profile)


def _announce_patch(launched: _Launch, console: Console) -> None:
    """Say before anything starts that uncommitted changes of the code will leave this machine."""
    if launched.progress.finished or not launched.request.send_patch:
        return
    patch = imported_state()["git_patch"]
    if patch is not None:
        console.print(
            f"uncommitted changes: a patch of {len(patch.splitlines())} lines goes to MLflow with "
            "the stages, masked where it looks like a secret; --no-patch sends none",
            style="yellow",
        )


def _run(launched: _Launch, manner: _Manner) -> int:
    """Run what is not complete, and say how it went; returns the exit code."""
    progress, store, tracking = launched.progress, launched.store, launched.tracking
    record_launch(launched.plan, store, launched.request)
    tracking.tell(expectation(progress.costs))
    driver: Driver = Runner(progress, store, launched.backend, launched.profile)
    if launched.backend.capabilities.detached:
        from orchestration.cluster import detached  # submitit takes a tenth of a second to import

        ask = not (manner.yes or manner.as_json)
        stay = detached.Manner(stay=manner.watch, ask=ask, as_json=manner.as_json)
        driver = detached.launch(
            progress, store, launched.backend, launched.profile, tracking, manner.console, stay
        )
    if not progress.finished or not tracking.is_current():
        run(driver, tracking, manner.console)
    report(progress, launched.uri, manner.console, as_json=manner.as_json)
    return exit_code(progress)


def _search(launched: _Launch, manner: _Manner) -> int:
    """A sweep that is a search, here or on a cluster; returns the exit code."""
    backend, request, uri = launched.backend, launched.request, launched.uri
    sweep, store, profile = launched.plan.sweep, launched.store, launched.profile
    if backend.capabilities.detached:
        from orchestration.backends.slurm import SlurmBackend
        from orchestration.search.controller import launch as launch_search

        assert isinstance(backend, SlurmBackend), "the one backend that is detached"
        parts = (sweep, store, request, backend, profile, uri, manner.console)
        return launch_search(*parts, stay=manner.watch, as_json=manner.as_json)
    from orchestration.search.launch import run_search  # Optuna takes half a second to import

    return run_search(
        sweep, store, request, backend, profile, uri, manner.console, as_json=manner.as_json
    )


def print_refusal(console: Console, refused: list[str]) -> None:
    """Why a launch would not start."""
    for reason in refused:
        console.print(f"would be refused: {reason}", style="red", soft_wrap=True)


def refuse(plan: Plan, store: Store, tracking: Tracking, refused: list[str]) -> NoReturn:
    """Say why nothing starts, remember it for `status` and MLflow, and exit with 3."""
    record_refusal(plan, store, refused)
    for reason in refused:
        print(f"refused: {reason}", file=sys.stderr)
    if (problem := tracking.tag_sweep({names.TAG_REFUSED: " | ".join(refused)})) is not None:
        print(f"MLflow does not know of it: {problem}", file=sys.stderr)
    raise typer.Exit(EXIT_REFUSED)


def main() -> None:
    """Entry point."""
    typer.run(launch)


if __name__ == "__main__":
    main()
