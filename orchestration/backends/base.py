"""What a backend must do. File name = registry key = the value of `--backend`.

A backend starts `python -m orchestration.worker STAGE_DIR` somewhere, once per process of the
stage, and says when that is over. What became of the stage is in its folder, and what follows
from an end is decided by `orchestration.policy.faults`: a backend retries nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestration.policy.profile import Request
from orchestration.runs.stage_records import Kind
from orchestration.runs.state import StageFolder


@dataclass(frozen=True)
class Job:
    """A submitted stage; `handle` is the backend's own."""

    folder: StageFolder
    handle: Any


@dataclass(frozen=True)
class Ended:
    """A job is over.

    Attributes:
        exit_code: of the worker; negative for a signal; None where nobody knows.
        reason: what the backend knows beyond that, such as `preempted`, `node_lost`,
            `timed_out` or `out_of_memory`; None: nothing.
        host: where it ran, if known.
    """

    exit_code: int | None
    reason: Kind | None = None
    host: str | None = None


class Infeasible(ValueError):
    """A request that this backend could never fulfil."""


class QueueFull(OSError):
    """The backend takes no more stages for now; later it may."""


class NoAnswer(ValueError):
    """The scheduler does not answer: what was asked may have happened, or not."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend offers beyond running a stage.

    Attributes:
        detached: jobs go on when the launcher ends.
        time_limits: a job that exceeds its time is stopped, with a warning before.
    """

    detached: bool
    time_limits: bool


class Backend(Protocol):
    """Runs `orchestration.worker` on stage folders."""

    @property
    def capabilities(self) -> Capabilities:
        """What it offers."""

    def warm_up(self) -> None:
        """Begin what takes time before the first job; returns at once."""

    def free_slots(self) -> int:
        """How many jobs may be submitted now."""

    def check(self, request: Request) -> None:
        """Refuse what can never be had here.

        Raises:
            Infeasible: says what was asked and what there is.
        """

    def submit(self, folder: StageFolder, request: Request) -> Job:
        """Start a stage's worker or workers, or queue them.

        Raises:
            QueueFull: not now.
            NoAnswer: whether it was queued is not known; the same call again finds out.
        """

    def poll(self, job: Job) -> Ended | None:
        """None while the job may still run or start."""

    def cancel(self, job: Job) -> None:
        """Ask the worker to save a checkpoint and stop; harmless when repeated or too late."""

    def logs(self, job: Job) -> list[Path]:
        """What the backend itself wrote about a job, beside the attempts' own logs."""

    def close(self) -> None:
        """Give everything back. Jobs still running are killed, unless they are detached."""
