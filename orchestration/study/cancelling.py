"""Stops what runs of a sweep, and starts nothing more of it.

A marker in the stage folder says so before anything is signalled: workers look for it with every
heartbeat, wherever they run, and nobody takes the end for a preemption. Jobs that wait in a
cluster's queue are taken out of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from orchestration.backends import connect_detached
from orchestration.backends.detached.journal import Journal
from orchestration.launching.history import newest_launches
from orchestration.launching.launched import LaunchedPlan
from orchestration.policy import faults
from orchestration.runs.leases import LEASE_SECONDS
from orchestration.runs.state import StageFolder, Store
from orchestration.study.status import orphans

Folders = Mapping[str, StageFolder]
POLL_SECONDS = 0.2
WAIT_SECONDS = LEASE_SECONDS + 15
"""Long enough to see that a worker on another machine, whose lease remains, is dead."""


@dataclass(frozen=True)
class Cancellation:
    """Stages that a user stopped.

    Attributes:
        cancelled: how many stages will not be run.
        running: those of them that were running, and save a checkpoint.
        ended: how many had ended before.
        shared: other sweep -> how many of the cancelled stages are its stages as well.
    """

    cancelled: int
    running: tuple[StageFolder, ...]
    ended: int
    shared: Mapping[str, int]

    def wait(self, seconds: float = WAIT_SECONDS) -> list[StageFolder]:
        """Wait until all have stopped; returns those that have not."""
        deadline = time.monotonic() + seconds
        left = list(self.running)
        while left and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            left = [folder for folder in left if folder.state() == "RUNNING"]
        return left


def cancel_launch(
    store: Store,
    launched: LaunchedPlan,
    trial: str | None = None,
    *,
    orphaned: bool = False,
) -> Cancellation:
    """Stop a launch, a trial of it, or what it no longer names; running stages save a checkpoint.

    Args:
        store: the runs directory.
        launched: the launch.
        trial: its name; None: all of it.
        orphaned: stop what earlier launches named and this one does not.

    Raises:
        ValueError: no such trial.
    """
    folders = chosen(store, launched, trial, orphaned)
    # Complete and failed stages get no marker: it says who stopped a stage, and nobody stopped
    # those.
    remaining = {key: folder for key, folder in folders.items() if may_go_on(folder)}
    inputs = {key: set(launched.stages[key].inputs.values()) for key in remaining if not orphaned}
    # Stages of other sweeps that share these are stopped with them: there is one folder for all.
    running = cancel_stages(store, remaining, inputs)
    shared = {
        other.sweep: len(remaining.keys() & other.stages.keys())
        for other in newest_launches(store)
        if other.sweep != launched.sweep
    }
    return Cancellation(
        cancelled=len(remaining),
        running=tuple(running),
        ended=len(folders) - len(remaining),
        shared={sweep: count for sweep, count in shared.items() if count},
    )


def may_go_on(folder: StageFolder) -> bool:
    """Tell whether a stage runs, or could be started."""
    state = folder.state()
    return state == "RUNNING" or (state == "WAITING" and folder.cancelled_by() is None)


def chosen(store: Store, launched: LaunchedPlan, trial: str | None, orphaned: bool) -> Folders:
    """Choose the stages to cancel; of one trial, those that no other trial needs.

    Raises:
        ValueError: no such trial.
    """
    if orphaned:
        return {key: stage.folder for key, stage in orphans(store, launched).items()}
    folders = launched.folders(store)
    if trial is None:
        return folders
    mine = launched.stages_of(trial)
    # Shared stages go on: the user gave up one trial, not those that need the same tokenizer.
    others = {
        key for name, stages in launched.trials.items() if name != trial for key in stages.values()
    }
    return {key: folders[key] for key in mine.values() if key not in others}


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
    # All markers before any signal: a stage that is just being started finds its own.
    for folder in folders.values():
        folder.cancel(who)
    # After the markers: whatever started in between counts as running, and sees its marker.
    running = [folder for folder in folders.values() if folder.state() == "RUNNING"]
    waiting = {key: folder for key, folder in folders.items() if folder not in running}
    _leave_queue(store, waiting)
    for key, folder in waiting.items():
        # Only the first of each chain fails: the others follow from the graph, as UPSTREAM_FAILED.
        first = folders.keys().isdisjoint(inputs.get(key, ()))
        if first and folder.state() == "WAITING":
            folder.write_failure(faults.cancelled(who, 0))
    return running


def _leave_queue(store: Store, waiting: Folders) -> None:
    for backend, journal in Journal(store).by_backend().items():
        handles = [str(job.handle) for key, job in journal.jobs().items() if key in waiting]
        if handles:
            connect_detached(backend, store).cancel_jobs(handles)
