"""Launch on a cluster: submit, say what was submitted, and leave; or stay and watch."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from rich.console import Console

from gigatok.stages import STAGES
from gigatok.text.fitting import FittingTable
from orchestration.backends.detached.journal import Journal
from orchestration.backends.detached.situation import are_over
from orchestration.backends.detached.submission import Submitted, submit_remaining
from orchestration.backends.detached.watch import Watcher
from orchestration.command_lines import steering
from orchestration.execution.progress import Progress
from orchestration.exits import Outcome
from orchestration.launching.launch import Launch
from orchestration.terminal import Terminal
from orchestration.tracking.shipping import Tracking

PREPARE_SECONDS, FINISH_SECONDS = 10.0, 5.0
"""How long a launch waits for MLflow before it leaves the rest to the controller."""


def queue(
    launch: Launch, progress: Progress, tracking: Tracking, terminal: Terminal
) -> Outcome | None:
    """Queue what is left of a plan; used by `launch` and `resume` alike.

    Args:
        launch: of the plan, on the cluster.
        progress: the survey of the plan; stages that are given up in it are left alone.
        tracking: of the plan.
        terminal: of the user, who confirms, and stays or leaves.

    Returns:
        How the launch ends here; None: the plan is to be followed, or was complete already.

    Raises:
        ValueError: the cluster refuses what is asked.
    """
    if progress.finished:  # nothing to ask the user about
        return None
    if not terminal.confirms(f"queue {progress.count('WAITING')} stages?"):
        return "declined"
    console = terminal.console
    submitted = submit_remaining(launch, progress, partial(console.print, style="dim"))
    print_submitted(submitted, launch, console)
    if terminal.watch or progress.finished:
        return None
    send(tracking, submitted, console)
    if terminal.as_json:
        print(json.dumps(submitted_json(submitted)))
    return "queued"


def watcher(launch: Launch, progress: Progress) -> Watcher:
    """Make a driver that follows a plan to its end."""
    return Watcher(progress, partial(still_queued, launch))


def still_queued(launch: Launch) -> bool:
    """Tell whether the cluster has any job of a plan; true while it does not say."""
    submissions = Journal(launch.store, launch.scheduler.name).submissions()
    jobs = [one.job for one in submissions if one.plan == launch.plan.key and one.job is not None]
    return not are_over(launch.scheduler, jobs)


def send(tracking: Tracking, submitted: Submitted, console: Console) -> None:
    """Make the runs in MLflow as far as that is quick; the controller sends the rest."""
    # The controller sends what remains, so that a slow server does not keep the user here.
    tracking.prepare(PREPARE_SECONDS)
    unsent = tracking.finish(FINISH_SECONDS, queued=submitted.goes_on)
    if unsent:
        console.print(str(unsent), style="yellow")


def print_submitted(submitted: Submitted, launch: Launch, console: Console) -> None:
    """Say what was submitted, and how to go on from here."""
    if submitted.arrays:
        console.print(_table(submitted))
    for count, text in (
        (len(submitted.live), "stages are queued or running already, and were left alone"),
        (len(submitted.foreign), "stages are run by another launch, and were left alone"),
        (len(submitted.left), "stages wait for these, or for room in the queue"),
    ):
        if count:
            console.print(f"{count} {text}")
    if submitted.controller is not None:
        console.print(f"job {submitted.controller} looks after the sweep when they are over")
    print_ways_on(launch, console)


def print_ways_on(launch: Launch, console: Console) -> None:
    """Say how to follow and how to cancel what goes on without the launcher."""
    sweep, store = launch.plan.sweep.name, launch.store
    console.print(f"follow    {steering('status', sweep, store, '-w')}", soft_wrap=True)
    console.print(f"cancel    {steering('cancel', sweep, store)}", soft_wrap=True)


def _table(submitted: Submitted) -> FittingTable:
    table = FittingTable(("stage", "stages", "jobs", "at a time"), ("stages",), wraps=("jobs",))
    for kind in STAGES:
        arrays = [array for array in submitted.arrays if array.kind == kind]
        if arrays:
            widths = [array.width for array in arrays]
            jobs = [str(array.job) for array in arrays]
            shown = ", ".join(jobs[:6]) + (f", … ({len(jobs)})" if len(jobs) > 6 else "")
            count = sum(len(array.folders) for array in arrays)
            cap = "any" if None in widths else " + ".join(map(str, widths[:6]))
            table.add_row(kind, str(count), shown, cap)
    return table


def submitted_json(submitted: Submitted) -> dict[str, Any]:
    """Convert a result into JSON data."""
    return {
        "arrays": [
            {"stage": array.kind, "job": array.job, "name": array.name, "folders": array.folders}
            for array in submitted.arrays
        ],
        "controller": submitted.controller,
        "live": sorted(submitted.live),
        "foreign": sorted(submitted.foreign),
        "left": submitted.left,
    }
