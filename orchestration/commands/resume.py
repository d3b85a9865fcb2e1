"""`python -m orchestration resume|retry SWEEP`: run again what did not complete.

Both continue the newest plan of a sweep as it was launched, on the same backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.options import RunsDir, Scale
from orchestration.commands.starting import start
from orchestration.study.study import Study

# None everywhere below: as launched. A default here would override the record.
Backend = Annotated[str | None, typer.Option(help="Default: as launched.")]
Jobs = Annotated[int | None, typer.Option(help="Stages at a time; default: as launched.")]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help="Default: as launched.")]
GpusPerStage = Annotated[int | None, typer.Option(min=1, help="Default: as launched.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow; default: as launched.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]
Watch = Annotated[bool, typer.Option("--watch", help="On a cluster: stay until it is done.")]
IgnoreGates = Annotated[
    bool, typer.Option("--ignore-gates", help="Start larger models whatever smaller ones did.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Queue jobs without asking.")]


def resume(
    sweep: str,
    scale: Scale = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Also what failed, its attempts counted anew.")
    ] = False,
    preempted: Annotated[
        bool, typer.Option("--preempted", help="Only what had begun, and what waits for it.")
    ] = False,
    backend: Backend = None,
    jobs: Jobs = None,
    profile_file: ProfileFile = None,
    gpus_per_stage: GpusPerStage = None,
    tracking_uri: TrackingUri = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    watch: Watch = False,
    yes: Yes = False,
    ignore_gates: IgnoreGates = False,
) -> None:
    """Continue a sweep as it was launched: what was stopped, cancelled, lost or never started."""
    prepared = Study(sweep, scale, runs=runs_dir).plan_resume(
        failed=failed,
        preempted=preempted,
        backend=backend,
        jobs=jobs,
        profile=profile_file,
        gpus_per_stage=gpus_per_stage,
        tracking_uri=tracking_uri,
        ignore_gates=ignore_gates,
    )
    start(prepared, dry_run=dry_run, watch=watch, yes=yes)


def retry(
    sweep: str,
    trial: str,
    stage: Annotated[
        str | None, typer.Argument(help="Default: all that did not complete.")
    ] = None,
    scale: Scale = None,
    backend: Backend = None,
    jobs: Jobs = None,
    profile_file: ProfileFile = None,
    gpus_per_stage: GpusPerStage = None,
    tracking_uri: TrackingUri = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    watch: Watch = False,
    yes: Yes = False,
) -> None:
    """Run what failed of a trial again, its attempts counted anew, and what it needs for that."""
    prepared = Study(sweep, scale, runs=runs_dir).plan_retry(
        trial,
        stage,
        backend=backend,
        jobs=jobs,
        profile=profile_file,
        gpus_per_stage=gpus_per_stage,
        tracking_uri=tracking_uri,
    )
    start(prepared, dry_run=dry_run, watch=watch, yes=yes)
