"""What a cluster has made of a plan: which stages are queued, and what ended without a result.

The journal says what was submitted, the stage folders what is complete, and the scheduler the
rest; each server is asked at most once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from orchestration.backends.base import Ended, Job
from orchestration.backends.slurm import SlurmBackend
from orchestration.backends.slurm_queue import (
    ABSENT_SECONDS,
    Status,
    ask_sacct,
    ask_squeue,
    explained,
    withdrawn,
)
from orchestration.backends.slurm_scheduler import are_gone, cancel_jobs, find_jobs, is_whole
from orchestration.cluster.journal import Journal, Submission, key_of
from orchestration.execution.progress import Progress
from orchestration.policy import faults
from orchestration.policy.profile import Profile
from orchestration.runs.leases import watch_suspects
from orchestration.runs.stage_records import Failure
from orchestration.runs.state import StageFolder

SETTLE_SECONDS = 20.0
"""A submission that was interrupted this long ago will not appear in the queue any more."""
GONE_SECONDS = 120.0
"""How long cancelled jobs may take to leave the queue."""


@dataclass
class Situation:
    """What is queued of a plan, and what became of the rest.

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
    over: dict[str, Status] = field(default_factory=dict)


def look(progress: Progress, journal: Journal) -> Situation:
    """Compare a plan with the journal and the queue; one question to each server at most.

    Stages that have become complete are noted in `progress`. That a job is not listed means
    nothing for the first minutes.

    Raises:
        ValueError: the queue cannot be read.
    """
    situation = Situation()
    jobs = journal.jobs()
    open_ = open_stages(progress)
    known = _statuses([jobs[key] for key in open_ if key in jobs])
    # A queue is looked at once, by a process that ends: it must not take a dead node's word.
    watch_suspects(progress.folders[key] for key in open_)
    born = {key_of(f): s.time for s in journal.submissions() for f in s.handles()}
    for key in open_:
        folder = progress.folders[key]
        state = folder.state()
        if state == "COMPLETE":
            progress.done_elsewhere.add(key)
            progress.set(key, "COMPLETE")
        elif key not in jobs or not folder.path.exists():
            if state == "RUNNING":
                situation.foreign.add(key)
        else:
            status = known.get(jobs[key].handle)
            young = time.time() - born[key] < ABSENT_SECONDS
            if state == "RUNNING" or (young if status is None else status.ended is None):
                situation.live[key] = jobs[key]
                if status is not None and status.ended is None:
                    situation.queued.add(key)
            else:
                over = Status("UNKNOWN") if status is None else explained(jobs[key], status)
                situation.over[key] = over
    return situation


def end_given_up(progress: Progress, journal: Journal) -> None:
    """End the jobs of stages that have failed or were cancelled, which a user wants again.

    For some seconds SLURM still lists them, and they would be taken for what was asked for.

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
        cancel_jobs(ending)
        _wait(partial(_none_listed, ending), ending)


def _is_given_up(folder: StageFolder) -> bool:
    stopped = folder.failure() is not None or folder.cancelled_by() is not None
    return stopped and folder.state() != "RUNNING"


def _none_listed(handles: Sequence[str]) -> bool:
    listed = ask_squeue()
    return listed is not None and all(
        handle not in listed or listed[handle].ended is not None for handle in handles
    )


def open_stages(progress: Progress) -> list[str]:
    """Keys of stages that are neither complete nor given up."""
    states = progress.states.items()
    return [k for k, s in states if s in ("WAITING", "RUNNING") and k not in progress.left]


def _statuses(jobs: Sequence[Job]) -> dict[str, Status]:
    if not jobs:
        return {}
    listed = ask_squeue()
    if listed is None:
        raise ValueError("squeue does not answer, so nothing was submitted; try again later")
    missing = {job.handle for job in jobs} - listed.keys()
    gone = dict.fromkeys(withdrawn(jobs, listed), Status("CANCELLED"))
    return {**gone, **ask_sacct(missing), **listed}


def settle_intents(journal: Journal, backend: SlurmBackend) -> list[str]:
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
        job = _find(submission)
        if job is not None and is_whole(backend, submission, job):
            journal.acknowledge(submission, job)
            said.append(f"{submission.name}: an interrupted launch had queued it as job {job}")
            continue
        if job is not None:
            cancel_jobs([job])
            _wait(partial(are_gone, [job]), [job])
            said.append(f"{submission.name}: job {job} of an interrupted launch is cancelled")
        journal.forget(submission)
    return said


def _find(submission: Submission) -> str | None:
    """The id of an interrupted submission; waits until it could not be in the making any more."""
    while True:
        grown = time.time() - submission.time > SETTLE_SECONDS
        job = find_jobs([submission.name]).get(submission.name)
        if job is not None or grown:
            return job
        time.sleep(1.0)


def _wait(over: Callable[[], bool], jobs: Sequence[str]) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while not over():
        if time.monotonic() > deadline:
            raise ValueError(f"jobs {', '.join(jobs)} were cancelled but do not end; see squeue")
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
            failure = faults.cancelled(who, 0)
            folder.write_failure(failure)
        elif failure is None and status is not None:
            failure = _after(progress, key, status, profile)
        if failure is not None:
            progress.fail(key, failure)


def _after(progress: Progress, key: str, status: Status, profile: Profile) -> Failure | None:
    folder = progress.folders[key]
    if status.state != "CANCELLED":
        return faults.after_end(folder, status.ended or Ended(None), profile)
    parents = progress.plan.stages[key].inputs.values()
    if progress.held or any(progress.states[parent] != "COMPLETE" for parent in parents):
        # Nobody cancelled it by hand: the sweep is held, or what it waited for did not complete.
        return None
    failure = faults.cancelled("scancel", 0)
    folder.write_failure(failure)
    return failure
