"""Records in a stage folder: what to run, how each attempt went, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gigatok.config.fields.base import UnixTime
from orchestration.runs.records import Prediction, Record, UsedPlugin

# Stored in files: rename none, and remove none while results of an older version are read.
Kind = Literal[
    "exception",
    "non_finite",
    "out_of_memory",
    "preempted",
    "node_lost",
    "timed_out",
    "killed",
    "cancelled",
]
"""Kinds of failure; `orchestration.policy.faults` holds the policy of each."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Time span in seconds that can be summed; a damaged record may hold any number."""

# A NUL byte makes every system call raise ValueError, far from the record that caused it.
FileName = Annotated[str, Field(pattern="^[^\\x00]+$")]
"""Path that can be passed to a file system."""


class Spec(Record):
    """Specification that a worker reads to run a stage."""

    stage: str
    version: int
    key: str
    readable: str
    config: dict[str, Any]
    inputs: dict[str, FileName]
    """Stage name -> folder, relative to the root that holds all stage folders."""
    prediction: Prediction | None = None
    """Expected needs, by the launch that made the folder; None: it made no prediction."""
    plugins: tuple[UsedPlugin, ...] = ()
    """Plug-ins to load before the stage is looked up."""


class Done(Record):
    """Complete stage: its scores, how they were measured, and its files."""

    metrics: dict[str, float]
    protocol: dict[str, str]
    origin: dict[str, str] = Field(default_factory=dict)
    """Source of the weights, if the stage adopted published ones; empty otherwise."""
    artifacts: dict[FileName, int]
    """Path below `out/` -> size in bytes."""
    hashes: dict[str, str] = Field(default_factory=dict)
    """Path below `out/` -> sha256."""
    finished: UnixTime
    seconds: Seconds
    """Run time in seconds, summed over all attempts except killed ones."""
    attempt: int


class Failure(Record):
    """Failure of an attempt: its kind, message and traceback."""

    kind: Kind
    message: str
    traceback: str | None
    attempt: int
    time: UnixTime


class Attempt(Record):
    """Attempt to run a stage; `ended` and `outcome` stay None if the worker was killed."""

    number: int
    host: str
    pid: int
    started: UnixTime
    ended: UnixTime | None = None
    outcome: Literal["complete", "failed", "interrupted"] | None = None
    # Defaults from here on: records of earlier code lack these fields and must stay readable.
    first_step: int = 0
    micro_batch: int | None = None
    """Samples per forward pass, if memory had run out before; None: as configured."""
    threads: int | None = None
    """Threads of each process; None: recorded by earlier code."""
    processes: int = 1
    waited_seconds: Seconds | None = None
    """Seconds that rank 0 waited for a busy processor; None until it ends, or if not counted."""
    peak_memory_bytes: int | None = None
    """Bytes, of rank 0: of its GPU, or of the process if it has none; None until it ends."""
    startup_seconds: Seconds | None = None
    """Seconds from the start of the process to `started`; None: recorded by earlier code."""
    provenance: dict[str, Any] = Field(default_factory=dict)


class Tries(Record):
    """Attempts in a row that made no newer checkpoint, by kind of failure."""

    step: int = -1
    """Step of the newest checkpoint, as of the last of these attempts."""
    counts: dict[Kind, int] = Field(default_factory=dict)

    def record(self, kind: Kind, step: int) -> Tries:
        """Count one more failure, with the newest checkpoint at `step`."""
        # Progress forgives: only failures in a row at the same checkpoint add up to the limit.
        before = {} if step > self.step else self.counts
        counts = {**before, kind: before.get(kind, 0) + 1}
        return Tries(step=max(step, self.step), counts=counts)
