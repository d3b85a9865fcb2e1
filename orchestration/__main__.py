"""`python -m orchestration COMMAND`: look at sweeps, steer them, and look after what they left.

Exit codes: 0 done, 1 a stage failed or something did not stop, 2 the request was wrong, 3 refused,
130 interrupted and resumable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.backends import BACKENDS
from orchestration.commands.calibrate import calibrate
from orchestration.commands.cancel import cancel
from orchestration.commands.cleanup import gc
from orchestration.commands.doctor import doctor
from orchestration.commands.explain import diff, explain
from orchestration.commands.logs import logs
from orchestration.commands.resume import resume, retry
from orchestration.commands.simulate import simulate
from orchestration.commands.starting import start
from orchestration.commands.status import status
from orchestration.commands.sync import sync
from orchestration.exits import answering
from orchestration.study.study import Study

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


def plan(
    sweep: str,
    scale: str | None = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    backend: Annotated[str, typer.Option(help=f"One of: {', '.join(BACKENDS)}.")] = "local",
    jobs: Annotated[int | None, typer.Option(help="Stages at a time.")] = None,
    profile: Annotated[Path | None, typer.Option(help="What stages ask of the cluster.")] = None,
    gpus_per_stage: Annotated[int | None, typer.Option(min=1, help="As for a launch.")] = None,
    max_gpu_hours: Annotated[float | None, typer.Option(help="As for a launch.")] = None,
    max_disk: Annotated[float | None, typer.Option(help="As for a launch, in GiB.")] = None,
    stages: Annotated[bool, typer.Option("--stages", help="A row for every stage.")] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show what a launch would run and reuse, and what it would cost."""
    prepared = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).plan(
        backend=backend,
        jobs=jobs,
        profile=profile,
        gpus_per_stage=gpus_per_stage,
        max_gpu_hours=max_gpu_hours,
        max_disk=max_disk,
    )
    start(prepared, dry_run=True, stages=stages, as_json=as_json)


for command in (
    plan,
    status,
    logs,
    cancel,
    resume,
    retry,
    calibrate,
    simulate,
    doctor,
    gc,
    explain,
    diff,
    sync,
):
    app.command()(answering(command))


if __name__ == "__main__":
    app()
