"""`python -m orchestration resume|retry SWEEP`: run again what did not complete.

Both launch the newest plan of a sweep as it was launched, from the YAML as it was then, on the
same backend. They differ from each other, and from a launch, in what they leave alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.logs import stage_keys
from orchestration.execution.progress import Progress
from orchestration.exits import fail
from orchestration.launch import start
from orchestration.launching.launched import (
    LaunchedPlan,
    LaunchRequest,
    Scale,
    find_launch,
    kept_sweep,
)
from orchestration.plan.graph import Plan
from orchestration.runs.state import StageFolder, Store

RunsDir = Annotated[Path, typer.Option(help="Where everything is kept.")]
Backend = Annotated[str | None, typer.Option(help="Default: as launched.")]
Jobs = Annotated[int | None, typer.Option(help="Stages at a time; default: as launched.")]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help="Default: as launched.")]
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
    tracking_uri: TrackingUri = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    watch: Watch = False,
    yes: Yes = False,
    ignore_gates: IgnoreGates = False,
) -> None:
    """Continue a sweep as it was launched: what was stopped, cancelled, lost or never started."""
    store = Store(runs_dir)
    launched = find_launch(store, sweep, scale)

    def leave(progress: Progress) -> None:
        if failed or preempted:
            refuse_search(progress.plan, "resume --failed and --preempted are")
        if not failed:
            leave_failed(progress)
        if preempted:
            leave_all_but(progress, begun(progress))

    request = changed(launched, store, backend, jobs, profile_file, tracking_uri)
    request = request.model_copy(update={"ignore_gates": ignore_gates})
    start(request, store, leave=leave, dry_run=dry_run, watch=watch, yes=yes)


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
    tracking_uri: TrackingUri = None,
    runs_dir: RunsDir = Path("runs"),
    dry_run: DryRun = False,
    watch: Watch = False,
    yes: Yes = False,
) -> None:
    """Run what failed of a trial again, its attempts counted anew, and what it needs for that."""
    store = Store(runs_dir)
    launched = find_launch(store, sweep, scale)
    try:
        keys = set(stage_keys(launched, launched.folders(store), trial, stage))
    except ValueError as error:
        fail(error)

    def leave(progress: Progress) -> None:
        refuse_search(progress.plan, "retry is")
        progress.distrust_damaged(keys & progress.folders.keys())
        leave_all_but(progress, with_inputs(progress.plan, keys))

    request = changed(launched, store, backend, jobs, profile_file, tracking_uri)
    request = request.model_copy(update={"ignore_gates": True})  # It was asked for by name.
    start(request, store, leave=leave, dry_run=dry_run, watch=watch, yes=yes)


def refuse_search(plan: Plan, what: str) -> None:
    """Complain where a plan is a search.

    Raises:
        ValueError: it is.
    """
    if plan.sweep.search is not None:
        raise ValueError(
            f"{what} not for a search: its trials that failed or were pruned have been told to "
            "Optuna and are over. `python -m orchestration resume` goes on with the search; "
            "launch it with a larger `trials` for more"
        )


def leave_failed(progress: Progress) -> None:
    """Give up what has failed, unless somebody only cancelled it."""
    for key, folder in progress.folders.items():
        failure = folder.failure() if progress.states[key] == "WAITING" else None
        if failure is not None and failure.kind != "cancelled" and folder.state() == "FAILED":
            progress.fail(key, failure)


def leave_all_but(progress: Progress, wanted: set[str]) -> None:
    """Run only these stages; the others stay as they are."""
    progress.left = frozenset(progress.folders.keys() - wanted - progress.reused)


def begun(progress: Progress) -> set[str]:
    """Stages that were started and stopped on the way, and those that wait for nothing else."""
    found: set[str] = set()
    for key, stage in progress.plan.stages.items():
        open_inputs = {i for i in stage.inputs.values() if progress.states[i] != "COMPLETE"}
        follows = bool(open_inputs) and open_inputs <= found
        if progress.states[key] == "WAITING" and (follows or _has_begun(progress.folders[key])):
            found.add(key)
    return found


def with_inputs(plan: Plan, keys: set[str]) -> set[str]:
    """Stages and everything that they need."""
    needed: set[str] = set()
    pending = [key for key in keys if key in plan.stages]
    while pending:
        key = pending.pop()
        if key not in needed:
            needed.add(key)
            pending += plan.stages[key].inputs.values()
    return needed


def _has_begun(folder: StageFolder) -> bool:
    return bool(folder.attempts())


def changed(
    launched: LaunchedPlan,
    store: Store,
    backend: str | None,
    jobs: int | None,
    profile_file: Path | None,
    tracking_uri: str | None,
) -> LaunchRequest:
    """What was asked for at launch, but for what the user wants otherwise now; None: as then."""
    changes = {
        "sweep": str(kept_sweep(launched, store)),
        "backend": backend,
        "jobs": jobs,
        "profile": None if profile_file is None else str(profile_file.absolute()),
        "tracking_uri": tracking_uri,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return launched.request.model_copy(update=given)
