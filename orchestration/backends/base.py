"""What a backend must do. File name = registry key = the value of `--backend`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from orchestration.state import StageFolder


@dataclass(frozen=True)
class Job:
    """A submitted stage; `handle` is the backend's own."""

    folder: StageFolder
    handle: Any


@dataclass(frozen=True)
class Ended:
    """A job is over. What became of the stage is in its folder, not here."""

    exit_code: int | None


class Backend(Protocol):
    """Runs `orchestration.worker` on stage folders."""

    def warm_up(self) -> None:
        """Begin what takes time before the first job; returns at once."""

    def free_slots(self) -> int:
        """How many jobs may be submitted now."""

    def submit(self, folder: StageFolder) -> Job:
        """Start a worker on a stage."""

    def poll(self, job: Job) -> Ended | None:
        """None while the job may still run."""

    def interrupt(self, job: Job) -> None:
        """Ask the worker to save a checkpoint and stop."""

    def close(self) -> None:
        """Give everything back; jobs still running are killed."""
