"""`python -m orchestration resume|retry SWEEP`: run again what did not complete.

Both continue the newest plan of a sweep as it was launched, on the same backend.
"""

from __future__ import annotations

from typing import Annotated, Unpack

import typer

from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.completion import stages, trials
from orchestration.commands.options import (
    DryRun,
    LaunchedScale,
    LaunchedSweep,
    Watch,
    Yes,
    launch_options,
)
from orchestration.commands.starting import start
from orchestration.study.study import LaunchOptions, Study

CHANGEABLE = ("backend", "jobs", "profile", "gpus_per_stage", "tracking_uri")
"""Options of a launch that may be otherwise when it is continued."""


@launch_options(*CHANGEABLE, "ignore_gates", as_launched=True)
def resume(
    sweep: LaunchedSweep,
    scale: LaunchedScale = None,
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="Also what failed, its attempts counted anew.")
    ] = False,
    preempted: Annotated[
        bool, typer.Option("--preempted", help="Only what had begun, and what waits for it.")
    ] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
    dry_run: DryRun = False,
    watch: Watch = False,
    yes: Yes = False,
    **options: Unpack[LaunchOptions],
) -> None:
    """Continue a sweep as it was launched: what was stopped, cancelled, lost or never started."""
    study = Study(sweep, scale, runs=runs_dir)
    prepared = study.plan_resume(failed=failed, preempted=preempted, **options)
    start(prepared, dry_run=dry_run, watch=watch, yes=yes)


# Without `ignore_gates`: a stage that is asked for by name passes them.
@launch_options(*CHANGEABLE, as_launched=True)
def retry(
    sweep: LaunchedSweep,
    trial: Annotated[str, typer.Argument(autocompletion=trials)],
    stage: Annotated[
        str | None,
        typer.Argument(help="Default: all that did not complete.", autocompletion=stages),
    ] = None,
    scale: LaunchedScale = None,
    *,
    runs_dir: RunsDir = DEFAULT_RUNS,
    dry_run: DryRun = False,
    watch: Watch = False,
    yes: Yes = False,
    **options: Unpack[LaunchOptions],
) -> None:
    """Run what failed of a trial again, its attempts counted anew, and what it needs for that."""
    prepared = Study(sweep, scale, runs=runs_dir).plan_retry(trial, stage, **options)
    start(prepared, dry_run=dry_run, watch=watch, yes=yes)
