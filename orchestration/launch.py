"""`python -m orchestration.launch SWEEP`: from one YAML to a scaling figure.

Exit codes: 0 done, 1 a stage failed, 2 the request was wrong, 130 interrupted and resumable.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestration.backends import BACKENDS, connect
from orchestration.launched import record_launch
from orchestration.plan import make_plan
from orchestration.preview import plan_json, print_plan
from orchestration.profile import load_profile
from orchestration.progress import survey
from orchestration.runner import Runner
from orchestration.state import Store
from orchestration.study import check_writable, exit_code, fail, prefetch, report, run
from orchestration.sweep import expand, load_sweep
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
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow; default: mlflow.db in the runs directory.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run every stage of a sweep that is not complete yet, then draw its figure."""
    store = Store(runs_dir)
    uri = tracking_uri or default_uri(store)
    try:
        loaded = load_sweep(sweep, scale, set_ or [])
        plan = make_plan(loaded, expand(loaded))
        progress = survey(plan, store)
        tracking = Tracking(uri, store, plan)
        profile = load_profile(profile_file)
        connected = connect(backend, jobs, profile, store)
        console = Console(stderr=as_json, markup=False, highlight=False)
        if not as_json:
            print_plan(console, progress)
        if dry_run:
            if as_json:
                print(json.dumps(plan_json(progress)))
            return
        check_writable(runs_dir)
        if not progress.finished:
            prefetch(plan)
    except (ValueError, OSError) as error:
        fail(error)
    try:
        record_launch(plan, store, uri)
        if not progress.finished or not tracking.is_current():
            run(Runner(progress, store, connected, profile), tracking, console)
        report(progress, uri, console, as_json=as_json)
    except OSError as error:
        fail(error)
    raise typer.Exit(exit_code(progress))


def main() -> None:
    """Entry point."""
    typer.run(launch)


if __name__ == "__main__":
    main()
