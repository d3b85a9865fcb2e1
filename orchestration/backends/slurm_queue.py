"""What SLURM says about jobs: one `squeue` for all of them, and one `sacct` for those it misses.

`squeue` also lists jobs that ended in the last minutes, so the accounting database is asked for
old ones only, and may be down. A state that is not known here is not an end.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestration.backends.base import Ended, Job
from orchestration.runs.stage_records import Kind

FRESH_SECONDS = 5.0
"""So long an answer is used again."""
ABSENT_SECONDS = 300.0
"""A job that nobody knows for so long, without interruption, and that shows no life, has ended."""
ANSWER_SECONDS = 60.0

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


@dataclass(frozen=True)
class Status:
    """What SLURM says about one job.

    Attributes:
        state: in SLURM's words, such as `PENDING`.
        exit_code: negative for a signal; 0 while there is none.
        host: where it runs or ran; None before.
        reason: why it waits, in SLURM's words; empty otherwise.
    """

    state: str
    exit_code: int = 0
    host: str | None = None
    reason: str = ""

    @property
    def ended(self) -> Ended | None:
        """None while it may still run or start."""
        if self.state not in ENDS:
            return None
        return Ended(self.exit_code, ENDS[self.state], self.host)


def explained(job: Job, status: Status) -> Status:
    """A status with the state that the job's own log tells, where SLURM says `FAILED` only.

    Where the memory of a job is watched but not limited, the log alone says that it ran out.
    """
    if status.state != "FAILED":
        return status
    logs = job.folder.store.slurm_files.glob(f"*/{job.handle}_*_log.*")
    return replace(status, state="OUT_OF_MEMORY") if any(map(_names_memory, logs)) else status


def _names_memory(log: Path) -> bool:
    """Whether SLURM wrote into a log that memory ran out; by lines, because a log can be large."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return any(map(_OUT_OF_MEMORY.search, lines))


_OUT_OF_MEMORY = re.compile(r"slurmstepd\S*: error: .*(exceeded .*memory limit|oom[-_ ]kill)")


def withdrawn(jobs: Iterable[Job], listed: Mapping[str, Status]) -> set[str]:
    """Array elements that were cancelled before they started: SLURM forgets them at once.

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


class Queue:
    """The jobs of this user, as of a few seconds ago."""

    def __init__(self) -> None:
        self._asked = -FRESH_SECONDS
        self._known: dict[str, Status] = {}
        self._listed: dict[str, Status] = {}
        self._wanted: set[str] = set()
        self._looked_up: set[str] = set()
        self._absent: dict[str, float] = {}

    def statuses(self, jobs: Iterable[Job]) -> dict[str, Status]:
        """Handle -> status, of those jobs that SLURM knows."""
        handles = {job.handle for job in jobs}
        self._wanted |= handles
        self._refresh(handles)
        return {handle: self._known[handle] for handle in handles if handle in self._known}

    def ended(self, job: Job) -> Ended | None:
        """None while the job may still run or start."""
        status = self.statuses([job]).get(job.handle)
        if status is not None:
            return explained(job, status).ended
        if job.handle in self._absent and withdrawn([job], self._listed):
            return Status("CANCELLED").ended
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
        missing = self._wanted - listed.keys()
        self._listed = listed
        self._known = {**ask_sacct(missing), **listed}
        self._looked_up = set(self._wanted)
        gone = self._wanted - self._known.keys()
        self._absent = {handle: self._absent.get(handle, self._asked) for handle in gone}


def ask_squeue() -> dict[str, Status] | None:
    """This user's jobs, array elements one by one; None where the scheduler does not answer."""
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    lines = _lines(["squeue", "--me", "--array", "--states=all", "--noheader", "-O", columns])
    if lines is None:
        return None
    found: dict[str, Status] = {}
    for line in lines:
        handle, state, code, host, reason = _split(line)
        status = Status(
            state=state,
            exit_code=_exit_code(code),
            host=host or None,
            reason="" if reason == "None" else reason,
        )
        found |= dict.fromkeys(elements(handle), status)
    return found


def ask_sacct(handles: Iterable[str]) -> dict[str, Status]:
    """What the accounting database says of jobs that ended; nothing where it does not answer."""
    arrays = sorted({handle.partition("_")[0] for handle in handles})
    if not arrays:
        return {}
    columns = "JobID,State,ExitCode,NodeList"
    command = ["sacct", "-X", "--noheader", "--parsable2", "-o", columns, "-j", ",".join(arrays)]
    found: dict[str, Status] = {}
    for line in _lines(command) or []:
        handle, state, code, nodes = line.split("|")
        # Of those that it calls pending the queue knows better.
        host = nodes if re.fullmatch(r"[\w.-]+", nodes) else None  # one, not several or none
        status = Status(state.split()[0], _exit_code(code), host)
        if status.ended is not None:
            found |= dict.fromkeys(elements(handle), status)
    return found


def elements(name: str) -> list[str]:
    """The handles that SLURM means by a name: `17`, `17_4`, or `17_[0,4-9%2]` before they start.

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
        fields.append(line[:width].strip())
        line = line[width:]
    return fields


def _exit_code(text: str) -> int:
    """Of sacct's `code:signal`, or of squeue's number, which is what wait(2) gives."""
    code, colon, number = text.partition(":")
    if not colon:
        return os.waitstatus_to_exitcode(int(code) & 0xFFFF)
    return -int(number) if int(number) else int(code)


def _lines(command: list[str]) -> list[str] | None:
    """What a command prints; None if it fails."""
    try:
        said = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=ANSWER_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [line for line in said.stdout.splitlines() if line.strip()]
