"""Heartbeat of a worker: it keeps the lease, follows who cancels, and samples the machine."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from orchestration.runs import provenance
from orchestration.runs.holder import LeaseHolder, LeaseLost
from orchestration.runs.leases import HEARTBEAT_SECONDS
from orchestration.tracking.spool import SpoolWriter

EXIT_BUSY = 75
"""Exit code of a worker whose stage another one holds: EX_TEMPFAIL of sysexits.h."""
# The interval of MLflow's own sampler.
SYSTEM_METRICS_SECONDS = 10.0


def with_origin(
    before: Mapping[str, Any], progress: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """Add to a stage's progress where its phase began, so that the remaining time can be told.

    A phase ends when the unit or the total changes, or when counting starts again.

    Args:
        before: the previous return value of this function; empty at first.
        progress: `done` of `total` `unit`, and more.
        now: UNIX seconds.
    """
    same = all(before.get(name) == progress[name] for name in ("unit", "total"))
    if same and before["done"] <= progress["done"]:
        return {**progress, **{name: before[name] for name in ("first_done", "first_time")}}
    return {**progress, "first_done": progress["done"], "first_time": now}


class Heart:
    """Thread that keeps the lease alive, and ends the process when the lease is lost."""

    def __init__(
        self,
        holder: LeaseHolder,
        stop: threading.Event,
        launcher_lives: Callable[[], bool],
    ) -> None:
        self._holder = holder
        self._stop_stage = stop
        self._ended = threading.Event()
        self._launcher_lives = launcher_lives
        self._progress: Mapping[str, Any] = {}
        self._sampled = time.monotonic()
        self._sampling = threading.Lock()
        self._spool: SpoolWriter | None = None
        self._thread: threading.Thread | None = None

    def report(self, progress: Mapping[str, Any]) -> None:
        """Store the stage's progress; the next beat writes it."""
        self._progress = with_origin(self._progress, progress, time.time())

    def sample_into(self, spool: SpoolWriter) -> None:
        """Write the machine's load into a spool from now on."""
        self._spool = spool

    def start(self) -> None:
        """Begin to beat."""
        # Daemonic: after an error in the main thread the process must end, not go on beating.
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def end_samples(self) -> None:
        """Stop writing to the spool, which is about to be closed."""
        with self._sampling:
            self._spool = None

    def stop(self) -> None:
        """Stop beating."""
        self._ended.set()
        assert self._thread is not None
        # Joined: a beat after the release of the lease would find it lost, and end the process.
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            if not self._launcher_lives() or self._holder.folder.cancelled_by() is not None:
                # A launch in the foreground that ends, ends its stages: nothing runs on unseen.
                self._stop_stage.set()
            try:
                self._sample()
                self._holder.renew(self._progress)
            except LeaseLost as lost:
                print(lost, file=sys.stderr, flush=True)
                _leave_nothing(self._holder)
            except Exception as error:
                # For example a full file system; the lease outlasts many beats, and the next may
                # succeed.
                print(f"heartbeat: {error!r}", file=sys.stderr, flush=True)

    def _sample(self) -> None:
        now = time.monotonic()
        # The lock excludes a sample into a spool that `end_samples` lets the main thread close.
        with self._sampling:
            if self._spool is not None and now - self._sampled >= SYSTEM_METRICS_SECONDS:
                self._sampled = now
                self._spool.metrics(provenance.system_metrics(), self._seconds())

    def _seconds(self) -> int:
        """Count the seconds since the stage was first started: the step of system metrics."""
        # Since the first attempt, so that the curve of a resumed stage goes on and never restarts.
        first = self._holder.folder.attempts()[0].started
        return int(time.time() - first)


def _leave_nothing(holder: LeaseHolder) -> NoReturn:
    """End this process at once, and then remove what its attempt made.

    The stage still runs in another thread. It could make a folder again that was removed before
    the process has ended. So a forked child, in which no other thread runs, waits for that end.
    """
    worker = os.getpid()
    try:
        if os.fork() == 0:
            while os.getppid() == worker:
                time.sleep(0.01)
            holder.discard()
    finally:
        # Even if no process can be forked; then the next launch removes the folder.
        os._exit(EXIT_BUSY)
