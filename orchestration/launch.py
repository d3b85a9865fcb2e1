"""`python -m orchestration.launch SWEEP`: from one YAML to a scaling figure.

Exit codes: 0 done, 1 a stage failed, 2 the request was wrong, 3 refused, 130 interrupted and
resumable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.backends import BACKENDS
from orchestration.commands.starting import start
from orchestration.exits import answering
from orchestration.study.study import Study


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
    gpus_per_stage: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs of a stage that can share its work, a process on each."),
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
        bool, typer.Option("--watch", help="On a cluster: stay until the sweep ends.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="On a cluster: do not ask.")] = False,
    no_patch: Annotated[
        bool, typer.Option("--no-patch", help="Send no patch of uncommitted changes to MLflow.")
    ] = False,
    ignore_gates: Annotated[
        bool, typer.Option("--ignore-gates", help="Start larger models whatever smaller ones did.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run every stage of a sweep that is not complete yet, then draw its figure."""
    prepared = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).plan(
        backend=backend,
        jobs=jobs,
        profile=profile_file,
        gpus_per_stage=gpus_per_stage,
        ray_address=ray_address,
        tracking_uri=tracking_uri,
        ignore_gates=ignore_gates,
        storage=storage,
        max_gpu_hours=max_gpu_hours,
        max_disk=max_disk,
        send_patch=not no_patch,
    )
    start(prepared, dry_run=dry_run, stages=stages, watch=watch, yes=yes, as_json=as_json)


def main() -> None:
    """Run the command line of `orchestration.launch`."""
    typer.run(answering(launch))


if __name__ == "__main__":
    main()
