"""`python -m orchestration COMMAND`: look at sweeps, steer them, and look after what they left.

Exit codes: 0 done, 1 a stage failed or something did not stop, 2 the request was wrong, 3 refused,
130 interrupted and resumable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import typer

from orchestration.commands.answering import answering
from orchestration.commands.calibrate import calibrate
from orchestration.commands.cancel import cancel
from orchestration.commands.cleanup import gc
from orchestration.commands.doctor import doctor
from orchestration.commands.explain import diff, explain
from orchestration.commands.logs import logs
from orchestration.commands.options import (
    AsJson,
    EveryStage,
    Overrides,
    PlannedScale,
    RunsDir,
    SweepFile,
    launch_options,
)
from orchestration.commands.resume import resume, retry
from orchestration.commands.schema import schema
from orchestration.commands.simulate import simulate
from orchestration.commands.starting import start
from orchestration.commands.status import status
from orchestration.commands.sync import sync
from orchestration.study.study import LaunchOptions, Study

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@launch_options("backend", "jobs", "profile", "gpus_per_stage", "max_gpu_hours", "max_disk")
def plan(
    sweep: SweepFile,
    scale: PlannedScale = None,
    set_: Overrides = None,
    *,
    stages: EveryStage = False,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
    **options: Unpack[LaunchOptions],
) -> None:
    """Show what a launch would run and reuse, and what it would cost."""
    prepared = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).plan(**options)
    start(prepared, dry_run=True, stages=stages, as_json=as_json)


COMMANDS = (
    *(plan, status, logs, cancel, resume, retry, calibrate),
    *(simulate, doctor, gc, explain, diff, sync, schema),
)
for command in COMMANDS:
    app.command()(answering(command))


if __name__ == "__main__":
    app()
