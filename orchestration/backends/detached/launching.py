"""Launch on a cluster: submit, say what was submitted, and leave; or stay and watch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from gigatok.stages import STAGES
from orchestration.backends.base import DetachedBackend
from orchestration.backends.detached.journal import Journal
from orchestration.backends.detached.situation import are_over
from orchestration.backends.detached.submission import Submitted, submit_remaining
from orchestration.backends.detached.watch import Watcher
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
    """Wishes of a user for a launch.

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
    backend: DetachedBackend,
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
        A driver that follows the plan, if it is complete already or the user stays.

    Raises:
        typer.Exit: everything is queued and the user leaves; or does not want it after all.
        ValueError: the cluster refuses what is asked.
    """
    watcher = Watcher(progress, lambda: still_queued(store, backend, progress.plan.key))
    if progress.finished:  # nothing to ask the user about
        return watcher
    count = progress.count("WAITING")
    asks = manner.ask and sys.stdin.isatty()
    if asks and not typer.confirm(f"queue {count} stages?", default=True):
        raise typer.Exit(EXIT_REFUSED)
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


def still_queued(store: Store, backend: DetachedBackend, plan_key: str) -> bool:
    """Tell whether the cluster has any job of a plan; true while it does not say."""
    submissions = Journal(store, backend.name).submissions()
    jobs = [one.job for one in submissions if one.plan == plan_key and one.job is not None]
    return not are_over(backend, jobs)


def send(tracking: Tracking, outcome: Submitted, console: Console) -> None:
    """Make the runs in MLflow as far as that is quick; the controller sends the rest."""
    # The controller sends what remains, so that a slow server does not keep the user here.
    tracking.prepare(PREPARE_SECONDS)
    unsent = tracking.finish(FINISH_SECONDS, queued=outcome.goes_on)
    if unsent:
        console.print(str(unsent), style="yellow")


def print_outcome(outcome: Submitted, progress: Progress, store: Store, console: Console) -> None:
    """Say what was submitted, and how to go on from here."""
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


def _table(outcome: Submitted) -> Table:
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


def outcome_json(outcome: Submitted) -> dict[str, Any]:
    """Convert a result into JSON data."""
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
