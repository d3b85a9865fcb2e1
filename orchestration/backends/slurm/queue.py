"""Questions to SLURM about jobs: one `squeue` for all, and one `sacct` for those it misses.

`squeue` also lists jobs that ended in the last minutes, so the accounting database is asked for
old ones only, and may be down. A state that is not known here is not an end.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestration.backends.base import Job, JobStatus, NoAnswer
from orchestration.backends.slurm.commands import lines_of
from orchestration.policy.ended import Ended
from orchestration.runs.stage_records import Kind

FRESH_SECONDS = 5.0
"""So long an answer is used again."""
ABSENT_SECONDS = 300.0
"""A job that nobody knows for so long, without interruption, and that shows no life, has ended."""

ENDS: dict[str, Kind | None] = {
    "COMPLETED": None,
    "FAILED": None,
    "CANCELLED": "cancelled",
    "REVOKED": "preempted",
    "PREEMPTED": "preempted",
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
    "OUT_OF_MEMORY": "out_of_memory",
    "NODE_FAIL": "node_lost",
    "BOOT_FAIL": "node_lost",
}
"""States that a job does not leave by itself, and what they mean."""

_COLUMNS = {"JobArrayID": 40, "State": 20, "exit_code": 16, "BatchHost": 64, "Reason": 120}


def status_of(
    state: str, exit_code: int = 0, host: str | None = None, reason: str = ""
) -> JobStatus:
    """Translate SLURM's words about one job.

    Args:
        state: such as `PENDING`.
        exit_code: negative for a signal; 0 while there is none.
        host: where it runs or ran; None before.
        reason: why it waits; empty otherwise.
    """
    ended = Ended(exit_code, ENDS[state], host) if state in ENDS else None
    return JobStatus(state, ended, None if reason == "Dependency" else reason)


def explained(job: Job, status: JobStatus) -> JobStatus:
    """Give a status the state that the job's own log tells, where SLURM says `FAILED` only.

    Where the memory of a job is watched but not limited, the log alone says that it ran out.
    """
    if status.state != "FAILED" or status.ended is None:
        return status
    logs = job.folder.store.job_files("slurm").glob(f"*/{job.handle}_*_log.*")
    if not any(map(_names_memory, logs)):
        return status
    return status_of("OUT_OF_MEMORY", status.ended.exit_code or 0, status.ended.host)


def _names_memory(log: Path) -> bool:
    """Tell whether SLURM wrote into a log that memory ran out."""
    # By lines, because a log can be larger than the memory of this machine.
    with log.open(encoding="utf-8", errors="replace") as lines:
        return any(map(_OUT_OF_MEMORY.search, lines))


_OUT_OF_MEMORY = re.compile(r"slurmstepd\S*: error: .*(exceeded .*memory limit|oom[-_ ]kill)")


def withdrawn(jobs: Iterable[Job], listed: Mapping[str, JobStatus]) -> set[str]:
    """Find array elements that were cancelled before they started: SLURM forgets them at once.

    They are not in the queue any more, but others of their array are, and all that live are.

    Args:
        jobs: that are not in the accounting database either.
        listed: the whole queue.
    """
    arrays = {handle.partition("_")[0] for handle in listed if "_" in handle}
    return {
        job.handle
        for job in jobs
        if job.handle not in listed
        and "_" in job.handle
        and job.handle.partition("_")[0] in arrays
        and not job.folder.attempts()
    }


def ask_about(jobs: Sequence[Job]) -> dict[str, JobStatus]:
    """Ask about jobs that may have ended long ago; one question to each server at most.

    Raises:
        NoAnswer: the queue cannot be read.
    """
    if not jobs:
        return {}
    listed = ask_squeue()
    if listed is None:
        raise NoAnswer("squeue does not answer, so nothing was submitted; try again later")
    missing = {job.handle for job in jobs} - listed.keys()
    gone = dict.fromkeys(withdrawn(jobs, listed), status_of("CANCELLED"))
    # Of a job that several know, the queue knows best.
    known = {**gone, **ask_sacct(missing), **listed}
    return {job.handle: explained(job, known[job.handle]) for job in jobs if job.handle in known}


class Queue:
    """Jobs of this user, as of a few seconds ago."""

    def __init__(self) -> None:
        # So that the first question is asked.
        self._asked = -FRESH_SECONDS
        self._known: dict[str, JobStatus] = {}
        self._listed: dict[str, JobStatus] = {}
        self._wanted: set[str] = set()
        self._looked_up: set[str] = set()
        self._absent: dict[str, float] = {}

    def statuses(self, jobs: Iterable[Job]) -> dict[str, JobStatus]:
        """Return the statuses of those jobs that SLURM knows, by handle."""
        handles = {job.handle for job in jobs}
        self._wanted |= handles
        self._refresh(handles)
        return {handle: self._known[handle] for handle in handles if handle in self._known}

    def ended(self, job: Job) -> Ended | None:
        """Return the end of a job; None while it may still run or start."""
        status = self.statuses([job]).get(job.handle)
        if status is not None:
            return explained(job, status).ended
        # Not by the clock: SLURM never told of such an element again.
        if job.handle in self._absent and withdrawn([job], self._listed):
            return status_of("CANCELLED").ended
        since = self._absent.get(job.handle)
        if since is None or time.monotonic() - since < ABSENT_SECONDS:
            return None
        return None if job.folder.state() == "RUNNING" else Ended(None)

    def _refresh(self, handles: set[str]) -> None:
        fresh = time.monotonic() - self._asked < FRESH_SECONDS
        if fresh and handles <= self._known.keys() | self._looked_up:
            return
        self._asked = time.monotonic()
        listed = ask_squeue()
        if listed is None:
            return  # nothing is known now, which is no absence
        # Everything that was ever asked about, in one command: a question per job would be a load
        # on slurmdbd.
        missing = self._wanted - listed.keys()
        self._listed = listed
        self._known = {**ask_sacct(missing), **listed}
        self._looked_up = set(self._wanted)
        gone = self._wanted - self._known.keys()
        # The first moment of an absence is kept; a job that reappears is dropped from here and
        # counts anew.
        self._absent = {handle: self._absent.get(handle, self._asked) for handle in gone}


def ask_squeue() -> dict[str, JobStatus] | None:
    """List this user's jobs, array elements one by one; None: the scheduler does not answer."""
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    lines = lines_of(["squeue", "--me", "--array", "--states=all", "--noheader", "-O", columns])
    if lines is None:
        return None
    found: dict[str, JobStatus] = {}
    for line in lines:
        handle, state, code, host, reason = _split(line)
        status = status_of(
            state,
            exit_code=_exit_code(code),
            host=host or None,
            reason="" if reason == "None" else reason,
        )
        found |= dict.fromkeys(elements(handle), status)
    return found


def ask_sacct(handles: Iterable[str]) -> dict[str, JobStatus]:
    """Ask the accounting database for jobs that ended; nothing where it does not answer."""
    arrays = sorted({handle.partition("_")[0] for handle in handles})
    if not arrays:
        return {}
    columns = "JobID,State,ExitCode,NodeList"
    command = ["sacct", "-X", "--noheader", "--parsable2", "-o", columns, "-j", ",".join(arrays)]
    found: dict[str, JobStatus] = {}
    for line in lines_of(command) or []:
        handle, state, code, nodes = line.split("|")
        # Of those that it calls pending the queue knows better.
        host = nodes if re.fullmatch(r"[\w.-]+", nodes) else None  # one, not several or none
        status = status_of(state.split()[0], _exit_code(code), host)
        if status.ended is not None:
            found |= dict.fromkeys(elements(handle), status)
    return found


def elements(name: str) -> list[str]:
    """List the handles that a name means: `17`, `17_4`, or `17_[0,4-9%2]` before they start.

    Nothing where it is not understood, such as one that is cut off.
    """
    array = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", name)
    if array is None:
        return [name] if re.fullmatch(r"\d+(_\d+)?", name) else []
    found = []
    for part in array[2].split(","):
        first, _, last = part.partition("-")
        found += [f"{array[1]}_{i}" for i in range(int(first), int(last or first) + 1)]
    return found


def _split(line: str) -> list[str]:
    fields = []
    for width in _COLUMNS.values():
        # By width, because names of nodes and reasons may contain any separator.
        fields.append(line[:width].strip())
        line = line[width:]
    return fields


def _exit_code(text: str) -> int:
    """Read sacct's `code:signal`, or squeue's number, which is what wait(2) gives."""
    code, colon, number = text.partition(":")
    if not colon:
        return os.waitstatus_to_exitcode(int(code) & 0xFFFF)
    return -int(number) if int(number) else int(code)
