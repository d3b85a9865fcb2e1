"""`plan SWEEP`: what a launch would do."""

from __future__ import annotations

from typing import Unpack

from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.options import (
    AsJson,
    EveryStage,
    Overrides,
    PlannedScale,
    SweepFile,
    launch_options,
)
from orchestration.commands.starting import start
from orchestration.study.study import LaunchOptions, Study


@launch_options("backend", "jobs", "profile", "gpus_per_stage", "max_gpu_hours", "max_disk")
def plan(
    sweep: SweepFile,
    scale: PlannedScale = None,
    set_: Overrides = None,
    *,
    stages: EveryStage = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
    as_json: AsJson = False,
    **options: Unpack[LaunchOptions],
) -> None:
    """Show what a launch would run and reuse, and what it would cost."""
    prepared = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).plan(**options)
    start(prepared, dry_run=True, stages=stages, as_json=as_json)
