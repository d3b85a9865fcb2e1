"""Leases: which worker runs a stage, and how others tell whether that worker still lives.

A process is looked up only if its number means the same as here: on the same boot of the same
machine, in the same PID namespace. Containers may share a host name, and the clocks of machines
may differ. So for every other worker only one thing counts: how long *this* process has seen its
heartbeat unchanged, on its own clock.
"""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import psutil
from pydantic import AfterValidator, Field

from gigatok.config.fields.base import UnixTime
from orchestration.runs.records import Record

# A minute outlasts the usual stalls of a shared file system; tests set it shorter.
LEASE_SECONDS = float(os.environ.get("GIGATOK_LEASE_SECONDS", "60"))
"""Seconds of an unchanged heartbeat after which another worker may take over the lease."""
# A hundredth of a lease: many beats in a row must fail before anybody takes over.
HEARTBEAT_SECONDS = 0.5

ProcessNumber = Annotated[int, Field(gt=0, lt=2**31)]
"""Process id that the system accepts; beyond it psutil raises errors of several kinds."""


# The live display divides by these to tell the time that is left.
_COUNTS = ("done", "total", "first_done", "first_time")


def _countable(progress: dict[str, Any]) -> dict[str, Any]:
    counts = [progress.get(name) for name in _COUNTS]
    values = [value for name, value in progress.items() if name != "unit"]
    finite = all(isinstance(n, int | float) and math.isfinite(n) for n in counts)
    # Checked on reading: a damaged heartbeat must not make `status` or a launcher fail later.
    shown = isinstance(progress.get("unit"), str) and all(
        isinstance(v, int | float) for v in values
    )
    if progress and not (finite and shown):
        raise ValueError(f"a unit and the numbers {', '.join(_COUNTS)} are expected")
    return progress


Reported = Annotated[dict[str, Any], AfterValidator(_countable)]
"""Progress of a stage: empty, or complete enough to compute the time that is left."""

Sight = Literal["alive", "gone", "unknown"]
"""Visible state of a worker's process, seen from this machine."""

_seen: dict[str, tuple[int, float]] = {}
"""Token -> newest heartbeat, and the monotonic time at which this process first saw it."""


class Beat(Record):
    """Heartbeat: its number, the holder's clock, and the progress of the stage."""

    beat: int
    heartbeat: UnixTime
    """UNIX seconds on the holder's clock: shown to people, never used to judge."""
    progress: Reported = Field(default_factory=dict)
    """`done`, `total`, `unit`, `started` and the values for the live display."""


class Lease(Record):
    """Lease of a stage: its holder, and how far the stage is.

    `lease.json` holds it as it was taken. `StageFolder.lease` adds the newest heartbeat, which the
    holder writes into the folder of its attempt.
    """

    token: str
    host: str
    machine: str
    """Scope within which `pid` names exactly one process; see `this_machine`."""
    pid: ProcessNumber
    # Process ids are reused: only together with its start does one name this process.
    pid_started: float
    attempt: int
    heartbeat: UnixTime
    beat: int = 0
    progress: Reported = Field(default_factory=dict)

    @staticmethod
    def mine(attempt: int) -> Lease:
        """Make the lease that this process takes for an attempt."""
        started = _process(os.getpid())
        assert started is not None
        return Lease(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            pid_started=started[1],
            attempt=attempt,
            heartbeat=time.time(),
        )

    def is_alive(self) -> bool:
        """Tell whether the holder may still be running, and note its heartbeat as seen."""
        # First, whatever `sight` says: the clock of silence must start when the lease is first
        # seen.
        silent = self.silent_seconds()
        sight = self.sight()
        return sight == "alive" or (sight == "unknown" and silent < LEASE_SECONDS)

    def silent_seconds(self) -> float:
        """Count the seconds in which this process saw the heartbeat unchanged; 0 at first."""
        now = time.monotonic()
        beat, since = _seen.get(self.token, (-1, now))
        if beat != self.beat:
            _seen[self.token] = (self.beat, now)
            return 0.0
        return now - since

    def sight(self) -> Sight:
        """Look for the holder's process.

        A stopped process (SIGSTOP, a suspended job) counts as unknown: it may never wake, and if
        it does it can do no harm.
        """
        if self.machine != this_machine():
            return "unknown"
        found = _process(self.pid)
        if found is None:
            # Being unlisted is no proof of death: `/proc` may hide the processes of other users.
            return "unknown" if _is_hidden(self.pid) else "gone"
        state, started = found
        if started != self.pid_started or state == psutil.STATUS_ZOMBIE:
            return "gone"
        stopped = state in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return "unknown" if stopped else "alive"

    def is_suspect(self) -> bool:
        """Tell whether the clocks call for a closer look; they never prove the holder's death."""
        # Two clocks that may disagree; a wrong suspicion only costs a wait.
        return self.sight() == "unknown" and abs(time.time() - self.heartbeat) > LEASE_SECONDS


class HasLease(Protocol):
    """Protocol of a stage folder, as far as its lease goes."""

    def lease(self) -> Lease | None:
        """Read the lease with its newest heartbeat."""


def watch_suspects(folders: Iterable[HasLease]) -> None:
    """Watch leases that look abandoned until each has beaten or been silent for too long.

    Takes up to `LEASE_SECONDS`, and no time if none is suspect. Meant for processes that decide
    once and end; one that polls leases anyway knows how long it has seen them.
    """
    watched = [f for f in folders if (lease := f.lease()) is not None and lease.is_suspect()]
    first = {id(folder): _mark(folder.lease()) for folder in watched}
    while watched:
        watched = [
            folder
            # Any change ends the watch: the lease is gone, has a new holder, or has beaten.
            for folder in watched
            if (lease := folder.lease()) is not None
            and _mark(lease) == first[id(folder)]
            and lease.is_alive()
        ]
        if watched:
            time.sleep(HEARTBEAT_SECONDS)


def _mark(lease: Lease | None) -> tuple[str, int] | None:
    return None if lease is None else (lease.token, lease.beat)


@cache
def this_machine() -> str:
    """Name the scope in which a process number means one process.

    On Linux these are the boot and the PID namespace, which no two machines or containers share
    even if their host names are equal. Elsewhere: the network card's address and the host name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x} {socket.gethostname()}"


def _process(pid: int) -> tuple[str, float] | None:
    """Read the status and the start of a process; None if it cannot be seen.

    On Linux the start is in clock ticks since boot: the time that psutil computes from them
    changes whenever somebody sets the wall clock.
    """
    try:
        status = psutil.Process(pid).status()
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return status, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
    # proc(5): field 22 is the start. Field 2, the name, may hold spaces and parentheses, so
    # fields are counted from its last closing parenthesis; what follows begins with field 3.
    return status, float(stat.rpartition(")")[2].split()[19])


def _is_hidden(pid: int) -> bool:
    """Tell whether a process exists that `/proc` hides from this user (mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
