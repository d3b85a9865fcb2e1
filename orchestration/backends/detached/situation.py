"""State of a plan on a cluster: which stages are queued, and what ended without a result.

The journal says what was submitted, the stage folders what is complete, and the scheduler the
rest; each server is asked at most once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestration.backends.base import DetachedBackend, Job, JobStatus
from orchestration.backends.detached.journal import Journal, Submission, key_of
from orchestration.execution.progress import Progress
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile
from orchestration.runs.leases import watch_suspects
from orchestration.runs.stage_records import Failure
from orchestration.runs.state import StageFolder

YOUNG_SECONDS = 300.0
"""So long after its submission, a job that the scheduler does not list may still appear."""
SETTLE_SECONDS = 20.0
"""A submission that was interrupted this long ago will not appear in the queue any more."""
GONE_SECONDS = 120.0
"""How long cancelled jobs may take to leave the queue."""


@dataclass
class Situation:
    """Jobs of a plan: what is queued, and what became of the rest.

    Attributes:
        live: key -> job, of stages that are queued or running as jobs of this runs directory, as
            far as one can tell: a job may be unknown to the scheduler as yet, or its end recent.
        queued: those of them that the scheduler itself says are queued or running.
        foreign: keys of stages that somebody else runs.
        over: key -> what the scheduler says of the newest job, of stages that are not complete.
    """

    live: dict[str, Job] = field(default_factory=dict)
    queued: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    over: dict[str, JobStatus] = field(default_factory=dict)


def look(progress: Progress, journal: Journal, backend: DetachedBackend) -> Situation:
    """Compare a plan with the journal and the queue; one question to each server at most.

    Stages that have become complete are noted in `progress`. That a job is not listed means
    nothing for the first minutes.

    Raises:
        ValueError: the queue cannot be read.
    """
    situation = Situation()
    # The order of the looks matters: the journal first, then the scheduler, then the folders. A
    # stage that ends in between is then found complete; the other way round it would look lost.
    jobs = journal.jobs()
    open_ = open_stages(progress)
    known = backend.statuses([jobs[key] for key in open_ if key in jobs])
    # A queue is looked at once, by a process that ends: it must not take a dead node's word.
    watch_suspects(progress.folders[key] for key in open_)
    born = {key_of(f): s.time for s in journal.submissions() for f in s.handles()}
    for key in open_:
        folder = progress.folders[key]
        state = folder.state()
        if state == "COMPLETE":
            progress.done_elsewhere.add(key)
            progress.set(key, "COMPLETE")
        # The journal may name a folder that was removed: the stage starts anew.
        elif key not in jobs or not folder.path.exists():
            if state == "RUNNING":
                situation.foreign.add(key)
        else:
            status = known.get(jobs[key].handle)
            # Without an answer about it: too young to be listed, or over for long.
            young = time.time() - born[key] < YOUNG_SECONDS
            # The lease counts more than the scheduler's word: a worker whose heart beats must not
            # be started a second time.
            if state == "RUNNING" or (young if status is None else status.ended is None):
                situation.live[key] = jobs[key]
                if status is not None and status.ended is None:
                    situation.queued.add(key)
            else:
                situation.over[key] = status or JobStatus("UNKNOWN", Ended(None))
    return situation


def end_given_up(progress: Progress, journal: Journal, backend: DetachedBackend) -> None:
    """End the jobs of stages that have failed or were cancelled, which a user wants again.

    For some seconds the scheduler still lists them, and they would be taken for what was asked.

    Raises:
        ValueError: they do not end.
    """
    jobs = journal.jobs()
    ending = [
        str(jobs[key].handle)
        for key in open_stages(progress)
        if key in jobs and _is_given_up(progress.folders[key])
    ]
    if ending:
        _cancel_and_wait(backend, ending)


def _is_given_up(folder: StageFolder) -> bool:
    stopped = folder.failure() is not None or folder.cancelled_by() is not None
    return stopped and folder.state() != "RUNNING"


def are_over(backend: DetachedBackend, handles: Iterable[str]) -> bool:
    """Tell whether nothing of these jobs, arrays and elements is queued or running any more.

    A scheduler that does not answer has said nothing of the kind.
    """
    listed = backend.listed()
    wanted = set(handles)
    # A handle of an element also ends with its whole array: `squeue` lists elements, while the
    # journal knows arrays.
    return listed is not None and not any(
        status.ended is None and not wanted.isdisjoint({handle, handle.partition("_")[0]})
        for handle, status in listed.items()
    )


def open_stages(progress: Progress) -> list[str]:
    """List the keys of stages that are neither complete nor given up."""
    states = progress.states.items()
    return [k for k, s in states if s in ("WAITING", "RUNNING") and k not in progress.left]


def settle_intents(journal: Journal, backend: DetachedBackend) -> list[str]:
    """Find out what became of submissions whose launcher was killed; the journal is held.

    A whole one is adopted. One whose files were not all in place is cancelled. One that the
    scheduler does not know, although it has had time to appear, never was.

    Returns:
        What was found, in words.

    Raises:
        ValueError: the queue cannot be read.
    """
    said = []
    for submission in [s for s in journal.submissions() if s.job is None]:
        job = _find(submission, backend)
        if job is not None and _is_whole(submission, job, backend):
            journal.acknowledge(submission, job)
            said.append(f"{submission.name}: an interrupted launch had queued it as job {job}")
            continue
        if job is not None:  # its elements could not find what they should run
            _cancel_and_wait(backend, [job])
            said.append(f"{submission.name}: job {job} of an interrupted launch is cancelled")
        journal.forget(submission)
    return said


def _is_whole(submission: Submission, job: str, backend: DetachedBackend) -> bool:
    handles = submission.model_copy(update={"job": job}).handles().values()
    return bool(handles) and backend.is_whole(submission.name, handles)


def _find(submission: Submission, backend: DetachedBackend) -> str | None:
    """Look for an interrupted submission until it could not be in the making any more."""
    # An interrupted sbatch may still be under way to the scheduler when its launcher is dead
    # already.
    while True:
        grown = time.time() - submission.time > SETTLE_SECONDS
        job = backend.find(submission.name)
        if job is not None or grown:
            return job
        time.sleep(1.0)


def _cancel_and_wait(backend: DetachedBackend, handles: Sequence[str]) -> None:
    backend.cancel_jobs(handles)
    deadline = time.monotonic() + GONE_SECONDS
    while not are_over(backend, handles):
        if time.monotonic() > deadline:
            raise ValueError(
                f"jobs {', '.join(handles)} were cancelled but do not end; look at the queue"
            )
        time.sleep(1.0)


def judge(progress: Progress, situation: Situation, profile: Profile, since: float) -> None:
    """Decide, in the controller, which stages whose jobs are over have failed.

    Applies the policies to those that ended without saying why, and notes failures in `progress`,
    those of stages behind them included, and whether they hold the sweep. The others can be
    submitted again.

    Args:
        progress: of the plan; changed.
        situation: of the plan.
        profile: how often what is tried again.
        since: when the plan was launched, UNIX seconds.
    """
    progress.held = faults.hold_on_disk(progress.folders.values(), profile.hold_after, since)
    for key in open_stages(progress):
        folder = progress.folders[key]
        if progress.states[key] == "UPSTREAM_FAILED" or key in situation.live:
            continue  # given up meanwhile; or not over
        failure = folder.failure()
        who = folder.cancelled_by()
        status = situation.over.get(key)
        if failure is None and who is not None:
            # On disk as well as in `progress`: the next controller and `status` know it from there
            # only.
            failure = faults.cancelled(who, 0)
            folder.write_failure(failure)
        elif failure is None and status is not None:
            failure = _after(progress, key, status, profile)
        if failure is not None:
            progress.fail(key, failure)


def _after(progress: Progress, key: str, status: JobStatus, profile: Profile) -> Failure | None:
    folder = progress.folders[key]
    ended = status.ended or Ended(None)
    if ended.reason != "cancelled":
        return faults.after_end(folder, ended, profile)
    parents = progress.plan.stages[key].inputs.values()
    if progress.held or any(progress.states[parent] != "COMPLETE" for parent in parents):
        # Nobody cancelled it by hand: the sweep is held, or what it waited for did not complete.
        return None
    failure = faults.cancelled("somebody, in the queue", 0)
    folder.write_failure(failure)
    return failure
