"""`python -m orchestration cancel SWEEP [TRIAL]`: stop what runs, and start nothing more of it.

A marker in the stage folder says so before anything is signalled: workers look for it with every
heartbeat, wherever they run, and nobody takes the end for a preemption. Jobs that wait in a
cluster's queue are taken out of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestration.cluster.journal import Journal
from orchestration.command_lines import steering
from orchestration.commands.sweep_status import orphans
from orchestration.exits import EXIT_FAILED, fail
from orchestration.launching.launched import (
    LaunchedPlan,
    Scale,
    find_launch,
    newest_launches,
    other_scales,
)
from orchestration.policy import faults
from orchestration.runs.leases import LEASE_SECONDS
from orchestration.runs.state import StageFolder, Store

Folders = Mapping[str, StageFolder]
POLL_SECONDS = 0.2
WAIT_SECONDS = LEASE_SECONDS + 15
"""Long enough to see that a worker on another machine, whose lease remains, is dead."""


def cancel(
    sweep: str,
    trial: Annotated[str | None, typer.Argument(help="Default: the whole sweep.")] = None,
    scale: Scale = None,
    orphaned: Annotated[
        bool, typer.Option("--orphaned", help="What the newest launch no longer names.")
    ] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until everything stopped.")
    ] = WAIT_SECONDS,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
) -> None:
    """Stop a sweep or a trial: running stages save a checkpoint first; `resume` continues."""
    store = Store(runs_dir)
    launched = find_launch(store, sweep, scale)
    console = Console(markup=False, highlight=False)
    try:
        folders = chosen(store, launched, trial, orphaned)
    except ValueError as error:
        fail(error)
    remaining = {key: folder for key, folder in folders.items() if may_go_on(folder)}
    inputs = {key: set(launched.stages[key].inputs.values()) for key in remaining if not orphaned}
    running = cancel_stages(store, remaining, inputs)
    console.print(
        f"{len(remaining)} stages cancelled, {len(running)} of them are running; "
        f"{len(folders) - len(remaining)} had ended before"
    )
    for other in newest_launches(store):
        shared = remaining.keys() & other.stages.keys()
        if shared and other.sweep != launched.sweep:
            console.print(f"{len(shared)} of them are also stages of {other.sweep}")
    if scale is None and (others := other_scales(store, launched)):
        console.print(f"this was scale {launched.scale}; --scale {others[0]} names another launch")
    still = wait_for(running, wait)
    if still:
        for folder in still:
            lease = folder.lease()
            where = "" if lease is None else f" on {lease.host}"
            console.print(f"{folder.path.parent.name} {folder.name}: still running{where}")
        raise typer.Exit(EXIT_FAILED)
    if remaining:
        go_on = steering("resume", launched.sweep, store)
        console.print(f"{go_on}   continues", soft_wrap=True)


def may_go_on(folder: StageFolder) -> bool:
    """Whether a stage runs, or could be started."""
    state = folder.state()
    return state == "RUNNING" or (state == "WAITING" and folder.cancelled_by() is None)


def chosen(store: Store, launched: LaunchedPlan, trial: str | None, orphaned: bool) -> Folders:
    """The stages to cancel; of one trial, those that no other trial needs.

    Raises:
        ValueError: no such trial.
    """
    if orphaned:
        return {key: stage.folder for key, stage in orphans(store, launched).items()}
    folders = launched.folders(store)
    if trial is None:
        return folders
    if trial not in launched.trials:
        raise ValueError(f"no trial {trial!r}; trials: {', '.join(launched.trials)}")
    others = {
        key for name, stages in launched.trials.items() if name != trial for key in stages.values()
    }
    return {key: folders[key] for key in launched.trials[trial].values() if key not in others}


def cancel_stages(
    store: Store, folders: Folders, inputs: Mapping[str, set[str]]
) -> list[StageFolder]:
    """Mark stages, and take those that wait out of the queue; returns those that run.

    Args:
        store: the runs directory.
        folders: by key.
        inputs: key -> keys of what the stage needs.
    """
    who = faults.user()
    for folder in folders.values():
        folder.cancel(who)
    running = [folder for folder in folders.values() if folder.state() == "RUNNING"]
    waiting = {key: folder for key, folder in folders.items() if folder not in running}
    _leave_queue(store, waiting)
    for key, folder in waiting.items():
        first = folders.keys().isdisjoint(inputs.get(key, ()))
        if first and folder.state() == "WAITING":
            folder.write_failure(faults.cancelled(who, 0))
    return running


def wait_for(running: Iterable[StageFolder], seconds: float) -> list[StageFolder]:
    """Wait until these stages have stopped; returns those that have not."""
    deadline = time.monotonic() + seconds
    left = list(running)
    while left and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = [folder for folder in left if folder.state() == "RUNNING"]
    return left


def _leave_queue(store: Store, waiting: Folders) -> None:
    if not (store.root / "journal").is_dir():
        return
    jobs = Journal(store).jobs()
    handles = [str(jobs[key].handle) for key in waiting if key in jobs]
    if handles:
        from orchestration.backends.slurm_scheduler import cancel_jobs

        cancel_jobs(handles)
