"""Continues a launch as it was launched: `resume` and `retry` differ in what they leave alone."""

from __future__ import annotations

from gigatok.text.command_lines import command
from orchestration.execution.progress import Progress
from orchestration.launching.launched import LaunchedPlan, LaunchRequest
from orchestration.plan.graph import Plan
from orchestration.runs.state import StageFolder, Store
from orchestration.study.launch import PreparedLaunch, prepare
from orchestration.study.logs import stage_keys


def prepare_resume(
    store: Store,
    launched: LaunchedPlan,
    request: LaunchRequest,
    *,
    failed: bool = False,
    preempted: bool = False,
) -> PreparedLaunch:
    """Plan what was stopped, cancelled, lost or never started.

    Args:
        store: the runs directory.
        launched: the plan to go on with.
        request: on which backend, and so on.
        failed: also what failed, its attempts counted anew.
        preempted: only what had begun, and what waits for it.

    Raises:
        ValueError: the plan is a search, of which no part can be chosen.
    """

    def leave(progress: Progress) -> None:
        if failed or preempted:
            refuse_search(progress.plan, "resume --failed and --preempted are")
        if not failed:
            leave_failed(progress)
        if preempted:
            leave_all_but(progress, begun(progress))

    return prepare(request, store, launched, leave)


def prepare_retry(
    store: Store, launched: LaunchedPlan, request: LaunchRequest, trial: str, stage: str | None
) -> PreparedLaunch:
    """Plan one trial or stage again, its attempts counted anew, and what it needs for that.

    Raises:
        ValueError: no such trial or stage, or the plan is a search.
    """
    keys = set(stage_keys(launched, launched.folders(store), trial, stage))

    def leave(progress: Progress) -> None:
        refuse_search(progress.plan, "retry is")
        # Stages named by the user are hashed: who retries a complete stage doubts its files.
        progress.distrust_damaged(keys & progress.folders.keys())
        leave_all_but(progress, with_inputs(progress.plan, keys))

    # It was asked for by name: no gate is asked.
    return prepare(request.model_copy(update={"ignore_gates": True}), store, launched, leave)


def refuse_search(plan: Plan, what: str) -> None:
    """Complain where a plan is a search.

    Raises:
        ValueError: it is.
    """
    if plan.sweep.search is not None:
        raise ValueError(
            f"{what} not for a search: its trials that failed or were pruned have been told to "
            f"Optuna and are over. `{command('orchestration', 'resume')}` goes on with the "
            "search; launch it with a larger `trials` for more"
        )


def leave_failed(progress: Progress) -> None:
    """Give up what has failed, unless somebody only cancelled it."""
    for key, folder in progress.folders.items():
        # Who cancelled a stage stopped it for a while; who resumes wants it again.
        failure = folder.failure() if progress.states[key] == "WAITING" else None
        if failure is not None and failure.kind != "cancelled" and folder.state() == "FAILED":
            progress.fail(key, failure)


def leave_all_but(progress: Progress, wanted: set[str]) -> None:
    """Run only these stages; the others stay as they are."""
    # Without the reused ones, which are complete and need no decision.
    progress.left = frozenset(progress.folders.keys() - wanted - progress.reused)


def begun(progress: Progress) -> set[str]:
    """Find stages that were started and stopped, and those that wait for nothing else."""
    found: set[str] = set()
    for key, stage in progress.plan.stages.items():
        open_inputs = {i for i in stage.inputs.values() if progress.states[i] != "COMPLETE"}
        # The plan lists inputs first, so that `found` holds all of them by now.
        follows = bool(open_inputs) and open_inputs <= found
        if progress.states[key] == "WAITING" and (follows or _has_begun(progress.folders[key])):
            found.add(key)
    return found


def with_inputs(plan: Plan, keys: set[str]) -> set[str]:
    """Add everything that stages need."""
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
