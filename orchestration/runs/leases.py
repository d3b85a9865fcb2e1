"""Who runs a stage, and how anybody tells whether that worker still lives.

A process is looked up only where its number means the same as here: on the same boot of the same
machine, in the same PID namespace. Containers may share a host name, and machines may disagree
about the time. So of every other worker only one thing counts: how long *this* process has seen
its heartbeat unchanged, on its own clock.
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

from orchestration.runs.records import Record, UnixTime

LEASE_SECONDS = float(os.environ.get("GIGATOK_LEASE_SECONDS", "60"))
"""A lease whose heartbeat was seen unchanged for so long may be taken over."""
HEARTBEAT_SECONDS = 0.5

ProcessNumber = Annotated[int, Field(gt=0, lt=2**31)]
"""What the system can be asked for; beyond it psutil raises errors of several kinds."""


_COUNTS = ("done", "total", "first_done", "first_time")


def _countable(progress: dict[str, Any]) -> dict[str, Any]:
    counts = [progress.get(name) for name in _COUNTS]
    values = [value for name, value in progress.items() if name != "unit"]
    finite = all(isinstance(n, int | float) and math.isfinite(n) for n in counts)
    shown = isinstance(progress.get("unit"), str) and all(
        isinstance(v, int | float) for v in values
    )
    if progress and not (finite and shown):
        raise ValueError(f"a unit and the numbers {', '.join(_COUNTS)} are expected")
    return progress


Reported = Annotated[dict[str, Any], AfterValidator(_countable)]
"""How far a stage is; empty, or complete enough to tell the time that is left."""

Sight = Literal["alive", "gone", "unknown"]
"""What can be seen of a worker's process from here."""

_seen: dict[str, tuple[int, float]] = {}
"""Token -> the newest heartbeat, and the monotonic time at which this process first saw it."""


class Beat(Record):
    """A heartbeat: its number, the holder's clock, and how far the stage is."""

    beat: int
    heartbeat: UnixTime
    """UNIX seconds on the holder's clock: for people, never to judge by."""
    progress: Reported = Field(default_factory=dict)
    """`done`, `total`, `unit`, `started` and the values for the live display."""


class Lease(Record):
    """Who runs a stage, and how far it is.

    `lease.json` holds it as it was taken; `StageFolder.lease` adds the newest heartbeat, which
    the holder writes into its attempt's own folder.
    """

    token: str
    host: str
    machine: str
    """Within it a process number means one process; see `this_machine`."""
    pid: ProcessNumber
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
        """Tell whether the holder may still be running; notes the heartbeat as seen."""
        silent = self.silent_seconds()
        sight = self.sight()
        return sight == "alive" or (sight == "unknown" and silent < LEASE_SECONDS)

    def silent_seconds(self) -> float:
        """Seconds for which this process has seen the heartbeat unchanged; 0 at first sight."""
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
            return "unknown" if _is_hidden(self.pid) else "gone"
        state, started = found
        if started != self.pid_started or state == psutil.STATUS_ZOMBIE:
            return "gone"
        stopped = state in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return "unknown" if stopped else "alive"

    def is_suspect(self) -> bool:
        """Tell whether the clocks make death worth a closer look; they are never proof of it."""
        return self.sight() == "unknown" and abs(time.time() - self.heartbeat) > LEASE_SECONDS


class HasLease(Protocol):
    """A stage folder, as far as its lease goes."""

    def lease(self) -> Lease | None:
        """Read the lease with its newest heartbeat."""


def watch_suspects(folders: Iterable[HasLease]) -> None:
    """Watch leases that look abandoned until each has beaten or been silent for too long.

    Takes up to `LEASE_SECONDS`, and no time where nothing is suspect. For processes that decide
    once and end; one that polls leases anyway knows how long it has seen them.
    """
    watched = [folder for folder in folders if _is_suspect(folder.lease())]
    first = {id(folder): _mark(folder.lease()) for folder in watched}
    while watched:
        watched = [
            folder
            for folder in watched
            if (lease := folder.lease()) is not None
            and _mark(lease) == first[id(folder)]
            and lease.is_alive()
        ]
        if watched:
            time.sleep(HEARTBEAT_SECONDS)


def _is_suspect(lease: Lease | None) -> bool:
    return lease is not None and lease.is_suspect()


def _mark(lease: Lease | None) -> tuple[str, int] | None:
    return None if lease is None else (lease.token, lease.beat)


@cache
def this_machine() -> str:
    """Name the scope in which a process number means one process.

    On Linux the boot and the PID namespace, which no two machines or containers share even if
    their host names are equal; elsewhere the network card's address beside the host name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x} {socket.gethostname()}"


def _process(pid: int) -> tuple[str, float] | None:
    """Status and start of a process; None where there is none to be seen.

    The start is read in clock ticks since boot where there are any: what psutil computes from
    them changes whenever somebody sets the wall clock.
    """
    try:
        status = psutil.Process(pid).status()
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return status, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
    # The name may hold spaces and parentheses; field 22 of the line is counted behind it.
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
