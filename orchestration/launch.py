"""`python -m orchestration.launch SWEEP`: from one YAML to a scaling figure.

Exit codes: 0 done, 1 a stage failed, 2 the request was wrong, 3 refused, 130 interrupted and
resumable.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gigatok import names
from orchestration.backends import BACKENDS, connect
from orchestration.backends.base import Backend
from orchestration.budget import Budget, record_refusal
from orchestration.budget import reasons as budget_reasons
from orchestration.devices import machines
from orchestration.exits import EXIT_REFUSED, fail
from orchestration.launched import LaunchRequest, record_launch
from orchestration.plan import Plan, make_plan
from orchestration.preview import plan_json, print_plan
from orchestration.profile import Profile, load_profile
from orchestration.progress import Progress, survey
from orchestration.runner import Runner
from orchestration.state import Store
from orchestration.study import (
    Driver,
    check_writable,
    exit_code,
    make_ready,
    report,
    run,
)
from orchestration.sweep import Sweep, expand, load_sweep
from orchestration.tracking import Tracking, default_uri


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
        float | None, typer.Option(help="Refuse to spend more; core hours without GPU.")
    ] = None,
    max_disk: Annotated[float | None, typer.Option(help="Refuse to fill more, in GiB.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Show the cost of every stage, not of every kind.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="On SLURM: stay, and show the sweep until it ends.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="On SLURM: submit without asking.")] = False,
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
    uri = request.tracking_uri or default_uri(store)
    try:
        loaded = load_sweep(request.sweep, request.scale, request.overrides)
        plan = make_plan(loaded, expand(loaded))
        tracking = Tracking(uri, store, plan)
        profile = load_profile(Path(request.profile) if request.profile else None)
        if request.ray_address is not None:
            profile = profile.model_copy(update={"ray_address": request.ray_address})
        if request.ignore_gates:
            profile = profile.model_copy(update={"gates": None})
        connected = connect(request.backend, request.jobs, profile, store)
        machine = machines(request.backend, request.jobs, profile)
        progress = survey(plan, store, lambda stage: machine(stage).site)
        leave(progress)
        console = Console(stderr=as_json, markup=False, highlight=False)
        budget = Budget(max_gpu_hours=request.max_gpu_hours, max_disk=request.max_disk)
        refused = budget_reasons(progress, machine, budget, store.root)
        if not as_json:
            print_plan(console, progress, machine, stages=stages)
        if dry_run and as_json:
            print(json.dumps({**plan_json(progress, machine), "refused": refused}))
        elif dry_run:
            print_refusal(console, refused)
        if dry_run:
            return
        check_writable(store.root)
        if refused:
            refuse(plan, store, tracking, refused)
        if loaded.search is not None or not progress.finished:
            examples = loaded.search.examples() if loaded.search else expand(loaded)
            make_ready(make_plan(loaded, examples), progress, connected, profile)
    except (ValueError, OSError) as error:
        fail(error)
    try:
        if loaded.search is not None:
            raise typer.Exit(
                _search(loaded, store, request, connected, profile, uri, console, watch, as_json)
            )
        record_launch(plan, store, request)
        driver: Driver = Runner(progress, store, connected, profile)
        if connected.capabilities.detached:
            from orchestration import detached  # submitit takes a tenth of a second to import

            manner = detached.Manner(stay=watch, ask=not (yes or as_json), as_json=as_json)
            driver = detached.launch(
                progress, store, connected, profile, tracking, console, manner
            )
        if not progress.finished or not tracking.is_current():
            run(driver, tracking, console)
        report(progress, uri, console, as_json=as_json)
    except (ValueError, OSError) as error:
        fail(error)
    raise typer.Exit(exit_code(progress))


def _search(
    sweep: Sweep,
    store: Store,
    request: LaunchRequest,
    backend: Backend,
    profile: Profile,
    uri: str,
    console: Console,
    stay: bool,
    as_json: bool,
) -> int:
    """A sweep that is a search, here or on a cluster; returns the exit code."""
    if backend.capabilities.detached:
        from orchestration import search_controller
        from orchestration.backends.slurm import SlurmBackend

        assert isinstance(backend, SlurmBackend), "the one backend that is detached"
        launched = (sweep, store, request, backend, profile, uri, console)
        return search_controller.launch(*launched, stay=stay, as_json=as_json)
    from orchestration import search_launch  # Optuna takes half a second to import

    return search_launch.run_search(
        sweep, store, request, backend, profile, uri, console, as_json=as_json
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
