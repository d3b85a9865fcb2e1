"""A launch on a cluster: submit, say what was submitted, and leave; or stay and watch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from gigatok.stages import STAGES
from orchestration.backends.base import Backend
from orchestration.backends.slurm import SlurmBackend
from orchestration.backends.slurm_queue import ask_squeue
from orchestration.cluster.journal import Journal
from orchestration.cluster.submission import Outcome, submit_remaining
from orchestration.cluster.watch import Watcher
from orchestration.command_lines import steering
from orchestration.execution.progress import Progress
from orchestration.exits import EXIT_REFUSED
from orchestration.launching.foreground import Driver
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from orchestration.tracking.shipping import Tracking

PREPARE_SECONDS, FINISH_SECONDS = 10.0, 5.0
"""How long a launch waits for MLflow before it leaves the rest to the controller."""


@dataclass(frozen=True)
class Manner:
    """How a user launches.

    Attributes:
        stay: follow the plan to its end.
        ask: let a user at a terminal confirm.
        as_json: print the jobs as JSON, unless it stays.
    """

    stay: bool
    ask: bool
    as_json: bool


def launch(
    progress: Progress,
    store: Store,
    backend: Backend,
    profile: Profile,
    tracking: Tracking,
    console: Console,
    manner: Manner,
) -> Driver:
    """Queue what is left of a plan; used by `launch` and `resume` alike.

    Args:
        progress: the survey of the plan; stages that are given up in it are left alone.
        store: the runs directory.
        backend: the cluster.
        profile: what stages ask for, and how often what is tried again.
        tracking: of the plan.
        console: for what is said.
        manner: how.

    Returns:
        What follows the plan, if it is complete already or the user stays.

    Raises:
        typer.Exit: everything is queued and the user leaves; or does not want it after all.
        ValueError: the cluster refuses what is asked.
    """
    watcher = Watcher(progress, store, lambda: still_queued(store, progress.plan.key))
    if progress.finished:
        return watcher
    count = progress.count("WAITING")
    asks = manner.ask and sys.stdin.isatty()
    if asks and not typer.confirm(f"queue {count} stages?", default=True):
        raise typer.Exit(EXIT_REFUSED)
    assert isinstance(backend, SlurmBackend), "the one backend that is detached"
    outcome = submit_remaining(
        progress, store, backend, profile, lambda text: console.print(text, style="dim")
    )
    print_outcome(outcome, progress, store, console)
    if manner.stay or progress.finished:
        return watcher
    send(tracking, outcome, console)
    if manner.as_json:
        print(json.dumps(outcome_json(outcome)))
    raise typer.Exit(0)


def still_queued(store: Store, plan_key: str) -> bool:
    """Whether the cluster has any job of a plan; true while it does not say.

    For `orchestration.cluster.watch`.
    """
    listed = ask_squeue()
    jobs = {s.job for s in Journal(store).submissions() if s.plan == plan_key}
    if listed is None:
        return True
    return any(
        handle.partition("_")[0] in jobs and status.ended is None
        for handle, status in listed.items()
    )


def send(tracking: Tracking, outcome: Outcome, console: Console) -> None:
    """Make the runs in MLflow as far as that is quick; the controller sends the rest."""
    tracking.prepare(PREPARE_SECONDS)
    unsent = tracking.finish(FINISH_SECONDS, queued=outcome.goes_on)
    if unsent:
        console.print(str(unsent), style="yellow")


def print_outcome(outcome: Outcome, progress: Progress, store: Store, console: Console) -> None:
    """What was submitted, and how to go on from here."""
    if outcome.arrays:
        console.print(_table(outcome))
    for count, text in (
        (len(outcome.live), "stages are queued or running already, and were left alone"),
        (len(outcome.foreign), "stages are run by another launch, and were left alone"),
        (len(outcome.left), "stages wait for these, or for room in the queue"),
    ):
        if count:
            console.print(f"{count} {text}")
    if outcome.controller is not None:
        console.print(f"job {outcome.controller} looks after the sweep when they are over")
    print_ways_on(progress.plan.sweep.name, store, console)


def print_ways_on(sweep: str, store: Store, console: Console) -> None:
    """Say how to follow and how to cancel what goes on without the launcher."""
    console.print(f"follow    {steering('status', sweep, store, '-w')}", soft_wrap=True)
    console.print(f"cancel    {steering('cancel', sweep, store)}", soft_wrap=True)


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("stage", "stages", "jobs", "at a time"):
        table.add_column(head, justify="right" if head == "stages" else "left")
    for kind in STAGES:
        arrays = [array for array in outcome.arrays if array.kind == kind]
        if arrays:
            widths = [array.width for array in arrays]
            jobs = [str(array.job) for array in arrays]
            shown = ", ".join(jobs[:6]) + (f", … ({len(jobs)})" if len(jobs) > 6 else "")
            count = sum(len(array.folders) for array in arrays)
            cap = "any" if None in widths else " + ".join(map(str, widths[:6]))
            table.add_row(kind, str(count), shown, cap)
    return table


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The same as data."""
    return {
        "arrays": [
            {"stage": array.kind, "job": array.job, "name": array.name, "folders": array.folders}
            for array in outcome.arrays
        ],
        "controller": outcome.controller,
        "live": sorted(outcome.live),
        "foreign": sorted(outcome.foreign),
        "left": outcome.left,
    }
