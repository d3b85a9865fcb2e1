"""`python -m orchestration.launch SWEEP`: from one YAML to a scaling figure.

Exit codes: 0 done, 1 a stage failed, 2 the request was wrong, 3 refused, 130 interrupted and
resumable.
"""

from __future__ import annotations

from typing import Unpack

import typer

from gigatok.commands.answering import answering
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.options import (
    AsJson,
    DryRun,
    EveryStage,
    NoPatch,
    Overrides,
    PlannedScale,
    SweepFile,
    Watch,
    Yes,
    launch_options,
)
from orchestration.commands.starting import start
from orchestration.study.study import LaunchOptions, Study


@launch_options()
def launch(
    sweep: SweepFile,
    scale: PlannedScale = None,
    set_: Overrides = None,
    *,
    runs_dir: RunsDir = DEFAULT_RUNS,
    dry_run: DryRun = False,
    stages: EveryStage = False,
    watch: Watch = False,
    yes: Yes = False,
    no_patch: NoPatch = False,
    as_json: AsJson = False,
    **options: Unpack[LaunchOptions],
) -> None:
    """Run every stage of a sweep that is not complete yet, then draw its figure."""
    options["send_patch"] = not no_patch
    prepared = Study(sweep, scale, runs=runs_dir, overrides=set_ or ()).plan(**options)
    start(prepared, dry_run=dry_run, stages=stages, watch=watch, yes=yes, as_json=as_json)


def main() -> None:
    """Run the command line of `orchestration.launch`."""
    typer.run(answering(launch))


if __name__ == "__main__":
    main()
