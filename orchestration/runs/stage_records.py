"""What the files of a stage folder say: what to run, how it went, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestration.runs.records import Prediction, Record, UnixTime

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
"""How an attempt can go wrong; `orchestration.policy.faults` says what follows."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A time span that can be summed and shown; a damaged record may claim any number."""

FileName = Annotated[str, Field(pattern="^[^\\x00]+$")]
"""A path that a file system can be asked for."""


class Spec(Record):
    """What a worker needs to run a stage."""

    stage: str
    version: int
    key: str
    readable: str
    config: dict[str, Any]
    inputs: dict[str, FileName]
    """Stage name -> folder, relative to the root that holds all stage folders."""
    prediction: Prediction | None = None
    """What the launch that made the folder expected it to need; None: it did not say."""


class Done(Record):
    """A complete stage: its scores, how they were measured and the files that it leaves."""

    metrics: dict[str, float]
    protocol: dict[str, str]
    origin: dict[str, str] = Field(default_factory=dict)
    """Of a stage that adopted weights: where they are from."""
    artifacts: dict[FileName, int]
    """Path below `out/` -> size in bytes."""
    hashes: dict[str, str] = Field(default_factory=dict)
    """Path below `out/` -> sha256."""
    finished: UnixTime
    seconds: Seconds
    """Run time summed over all attempts but those that were killed."""
    attempt: int


class Failure(Record):
    """Why an attempt failed."""

    kind: Kind
    message: str
    traceback: str | None
    attempt: int
    time: UnixTime


class Attempt(Record):
    """One run of a stage's worker; `ended` and `outcome` stay None when it was killed."""

    number: int
    host: str
    pid: int
    started: UnixTime
    ended: UnixTime | None = None
    outcome: Literal["complete", "failed", "interrupted"] | None = None
    first_step: int = 0
    micro_batch: int | None = None
    """Samples at a time, where memory had run out before; None: as configured."""
    threads: int | None = None
    """Of each process; None: recorded by earlier code."""
    processes: int = 1
    waited_seconds: Seconds | None = None
    """Of rank 0, for a processor that others had; None until it ends, or where nobody counts."""
    peak_memory_bytes: int | None = None
    """Of rank 0: of its GPU, without GPU of the process; None until it ends."""
    provenance: dict[str, Any] = Field(default_factory=dict)


class Tries(Record):
    """Attempts in a row that brought no newer checkpoint, by how they ended."""

    step: int = -1
    """The newest checkpoint's step, as of the last of them."""
    counts: dict[Kind, int] = Field(default_factory=dict)

    def record(self, kind: Kind, step: int) -> Tries:
        """Count one more end, with the newest checkpoint at `step`."""
        before = {} if step > self.step else self.counts
        counts = {**before, kind: before.get(kind, 0) + 1}
        return Tries(step=max(step, self.step), counts=counts)
