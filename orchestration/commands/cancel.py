"""`python -m orchestration cancel SWEEP [TRIAL]`: stop what runs, and start nothing more of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.command_lines import steering
from orchestration.commands.completion import trials
from orchestration.commands.options import LaunchedScale, LaunchedSweep
from orchestration.exits import EXIT_FAILED
from orchestration.study.cancelling import WAIT_SECONDS, Cancellation
from orchestration.study.study import Study
from orchestration.terminal import plain_console


def cancel(
    sweep: LaunchedSweep,
    trial: Annotated[
        str | None, typer.Argument(help="Default: the whole sweep.", autocompletion=trials)
    ] = None,
    scale: LaunchedScale = None,
    orphaned: Annotated[
        bool, typer.Option("--orphaned", help="What the newest launch no longer names.")
    ] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until everything stopped.")
    ] = WAIT_SECONDS,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Stop a sweep or a trial: running stages save a checkpoint first; `resume` continues."""
    study = Study(sweep, scale, runs=runs_dir)
    launched = study.launched()
    found = study.cancel(trial, orphaned=orphaned)
    console = plain_console()
    _print(found, console)
    # Without `--scale` the newest launch was meant; the user may have thought of another one.
    if scale is None and (others := study.other_scales()):
        console.print(f"this was scale {launched.scale}; --scale {others[0]} names another launch")
    # Workers on other nodes see the marker with their next heartbeat, and save a checkpoint then.
    if still := found.wait(wait):
        for folder in still:
            lease = folder.lease()
            where = "" if lease is None else f" on {lease.host}"
            console.print(f"{folder.path.parent.name} {folder.name}: still running{where}")
        # Not an error of the request: the marker stays, and the stages stop when their workers see
        # it.
        raise typer.Exit(EXIT_FAILED)
    if found.cancelled:
        go_on = steering("resume", launched.sweep, study.store)
        console.print(f"{go_on}   continues", soft_wrap=True)


def _print(found: Cancellation, console: Console) -> None:
    console.print(
        f"{found.cancelled} stages cancelled, {len(found.running)} of them are running; "
        f"{found.ended} had ended before"
    )
    for sweep, count in found.shared.items():
        console.print(f"{count} of them are also stages of {sweep}")
