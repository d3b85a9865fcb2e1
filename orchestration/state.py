"""The stage folder: the only owner of file names and of what "done" means.

`<runs>/stages/<stage>/<readable>-<key>/` holds
    spec.json      what to run: stage, config, inputs
    DONE           written last, by atomic rename: the stage is complete
    FAILED.json    why the newest attempt failed; a new attempt removes it
    micro_batch    samples at a time, after memory ran out
    tries.json     attempts in a row that got no further; a launch by the user starts anew
    HELD           why a gate keeps it from starting; the next launch looks anew
    CANCEL         the user wants it stopped; the next launch or resume removes it
    lease.json     who runs it now, with a heartbeat and the progress
    attempts/      one record per attempt
    spool/         metrics and pictures, in the order they were made
    checkpoints/   where an interrupted stage goes on
    out/           what later stages read
    logs/          what each attempt printed
Nothing else decides whether a stage is complete. Absence of a process is never taken for death
on another machine: only a lease without heartbeat for `LEASE_SECONDS` is.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import Field

from orchestration.files import locked, read_if_there, write_atomic
from orchestration.records import Prediction, Record

State = Literal["WAITING", "RUNNING", "COMPLETE", "FAILED", "UPSTREAM_FAILED", "PRUNED"]
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
"""How an attempt can go wrong; `orchestration.faults` says what follows."""

LEASE_SECONDS = 60.0
"""A lease on another host without heartbeat for so long may be taken over."""
HEARTBEAT_SECONDS = 0.5
CREATORS = 16  # stage folders that are made at the same time
FRESH_SECONDS = 10.0
"""So young a heartbeat proves life even where the clock has been set since the process started."""


class Spec(Record):
    """What a worker needs to run a stage."""

    stage: str
    version: int
    key: str
    readable: str
    config: dict[str, Any]
    inputs: dict[str, str]
    """Stage name -> folder, relative to the root that holds all stage folders."""
    prediction: Prediction | None = None
    """What the launch that made the folder expected it to need; None: it did not say."""


class Done(Record):
    """A complete stage: its scores, how they were measured and the files that it leaves."""

    metrics: dict[str, float]
    protocol: dict[str, str]
    origin: dict[str, str] = Field(default_factory=dict)
    """Of a stage that adopted weights: where they are from."""
    artifacts: dict[str, int]
    """Path below `out/` -> size in bytes."""
    finished: float
    """UNIX seconds."""
    seconds: float
    """Run time summed over all attempts but those that were killed."""
    attempt: int


class Failure(Record):
    """Why an attempt failed."""

    kind: Kind
    message: str
    traceback: str | None
    attempt: int
    time: float


class Attempt(Record):
    """One run of a stage's worker; `ended` and `outcome` stay None when it was killed."""

    number: int
    host: str
    pid: int
    started: float
    ended: float | None = None
    outcome: Literal["complete", "failed", "interrupted"] | None = None
    first_step: int = 0
    micro_batch: int | None = None
    """Samples at a time, where memory had run out before; None: as configured."""
    threads: int | None = None
    """Of each process; None: recorded by earlier code."""
    processes: int = 1
    waited_seconds: float | None = None
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


class Lease(Record):
    """Who runs a stage, and how far it is."""

    token: str
    host: str
    pid: int
    pid_started: float
    attempt: int
    heartbeat: float
    progress: dict[str, Any] = Field(default_factory=dict)
    """`done`, `total`, `unit`, `started` and the values for the live display."""

    def is_alive(self, now: float | None = None) -> bool:
        """Whether the holder may still be running."""
        if self.host == socket.gethostname():
            return self._process_lives()
        return (now or time.time()) - self.heartbeat < LEASE_SECONDS

    def _process_lives(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            # Start times are computed from the wall clock, which may have been set meanwhile.
            same = abs(process.create_time() - self.pid_started) < 1.0
            return bool(same or abs(time.time() - self.heartbeat) < FRESH_SECONDS)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder; every path in it is named here and nowhere else."""

    path: Path

    @property
    def name(self) -> str:
        """`<readable>-<key>`."""
        return self.path.name

    @property
    def store(self) -> Store:
        """The runs directory that the folder is in."""
        return Store(self.path.parent.parent.parent)

    @property
    def done_file(self) -> Path:
        """Exists when the stage is complete."""
        return self.path / "DONE"

    @property
    def out(self) -> Path:
        """What later stages read."""
        return self.path / "out"

    @property
    def checkpoints(self) -> Path:
        """Where an interrupted stage goes on."""
        return self.path / "checkpoints"

    @property
    def spool(self) -> Path:
        """Metrics and pictures."""
        return self.path / "spool"

    def log(self, attempt: int, rank: int = 0) -> Path:
        """What one attempt printed; processes that rank 0 leads have files of their own."""
        name = f"attempt-{attempt:03d}.log"
        return self.path / "logs" / (f"rank-{rank:03d}-{name}" if rank else name)

    def logs(self) -> list[Path]:
        """Logs of all attempts, oldest first; of rank 0 where there are several processes."""
        return sorted((self.path / "logs").glob("attempt-*.log"))

    def checkpoint_step(self) -> int:
        """Steps that need not be run again, by the name of the newest checkpoint."""
        names = sorted(path.name for path in self.checkpoints.glob("step-*"))
        return int(names[-1].removeprefix("step-")) if names else 0

    def is_complete(self) -> bool:
        """Whether the stage is complete."""
        return os.path.exists(os.path.join(self.path, "DONE"))

    def spec(self) -> Spec:
        """What the stage runs."""
        return Spec.model_validate_json((self.path / "spec.json").read_bytes())

    def done(self) -> Done | None:
        """The record of completion, None while there is none."""
        text = read_if_there(self.done_file)
        return None if text is None else Done.model_validate_json(text)

    def failure(self) -> Failure | None:
        """Why the newest attempt failed; None if it did not."""
        text = read_if_there(self.path / "FAILED.json")
        return None if text is None else Failure.model_validate_json(text)

    def clear_failure(self) -> None:
        """Forget why the newest attempt failed: the stage is tried again."""
        (self.path / "FAILED.json").unlink(missing_ok=True)

    def tries(self) -> Tries:
        """How often in a row the stage got no further."""
        text = read_if_there(self.path / "tries.json")
        return Tries() if text is None else Tries.model_validate_json(text)

    def write_tries(self, tries: Tries) -> None:
        """Record how often in a row the stage got no further."""
        write_atomic(self.path / "tries.json", _json(tries))

    def micro_batch(self) -> int | None:
        """Samples at a time that fit into memory, where the configured number did not."""
        text = read_if_there(self.path / "micro_batch")
        return None if text is None else int(text)

    def write_micro_batch(self, size: int) -> None:
        """Let later attempts process fewer samples at a time; the result stays the same stage."""
        write_atomic(self.path / "micro_batch", str(size))

    def clear_tries(self) -> None:
        """Start counting anew: somebody decided to run the stage, cancelled or not."""
        (self.path / "tries.json").unlink(missing_ok=True)
        (self.path / "CANCEL").unlink(missing_ok=True)
        (self.path / "HELD").unlink(missing_ok=True)

    def hold(self, why: str) -> None:
        """Record why a gate keeps the stage from starting."""
        write_atomic(self.path / "HELD", why)

    def held(self) -> str | None:
        """Why a gate keeps the stage from starting; None: none does."""
        text = read_if_there(self.path / "HELD")
        return None if text is None else text.decode()

    def cancel(self, who: str) -> None:
        """Ask whoever runs the stage to stop, and nobody to start it; makes the folder.

        Written before anybody is signalled, so that the end is not taken for a preemption.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / "CANCEL", who)

    def cancelled_by(self) -> str | None:
        """Who cancelled the stage; None: nobody did."""
        text = read_if_there(self.path / "CANCEL")
        return None if text is None else text.decode()

    def lease(self) -> Lease | None:
        """The lease, alive or not; None where nobody holds one."""
        text = read_if_there(self.path / "lease.json")
        return None if text is None else Lease.model_validate_json(text)

    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first."""
        files = sorted((self.path / "attempts").glob("*.json"))
        return [Attempt.model_validate_json(file.read_bytes()) for file in files]

    def state(self) -> State:
        """What the folder says; `UPSTREAM_FAILED` and `PRUNED` are for the plan to know."""
        if self.is_complete():
            return "COMPLETE"
        lease = self.lease()
        if lease is not None and lease.is_alive():
            return "RUNNING"
        if self.is_complete():
            # It completed between the two looks.
            return "COMPLETE"
        return "FAILED" if (self.path / "FAILED.json").exists() else "WAITING"

    def write_attempt(self, attempt: Attempt) -> None:
        """Create or replace an attempt's record."""
        write_atomic(self.path / "attempts" / f"{attempt.number:03d}.json", _json(attempt))

    def write_failure(self, failure: Failure) -> None:
        """Record why the newest attempt failed."""
        write_atomic(self.path / "FAILED.json", _json(failure))


class LeaseLost(RuntimeError):
    """Another worker took the stage over; this one must stop without writing."""


class LeaseHolder:
    """The right to run a stage, held by one worker at a time."""

    def __init__(self, folder: StageFolder, lease: Lease) -> None:
        self.folder = folder
        self.lease = lease

    def renew(self, progress: Mapping[str, Any]) -> None:
        """Write the heartbeat.

        Raises:
            LeaseLost: another worker holds the lease.
        """
        update = {"heartbeat": time.time(), "progress": dict(progress)}
        with _locked(self.folder.path):
            self._check()
            self.lease = self.lease.model_copy(update=update)
            write_atomic(self.folder.path / "lease.json", _json(self.lease), durable=False)

    def complete(self, done: Done) -> None:
        """Mark the stage complete and give the lease back.

        Raises:
            LeaseLost: another worker holds the lease.
        """
        with _locked(self.folder.path):
            self._check()
            (self.folder.path / "FAILED.json").unlink(missing_ok=True)
            write_atomic(self.folder.done_file, _json(done))
            (self.folder.path / "lease.json").unlink()

    def release(self) -> None:
        """Give the lease back without completing."""
        with _locked(self.folder.path):
            self._check()
            (self.folder.path / "lease.json").unlink()

    def _check(self) -> None:
        current = self.folder.lease()
        if current is None or current.token != self.lease.token:
            raise LeaseLost(f"{self.folder.path.name} is run by somebody else now: {current}")


def acquire(folder: StageFolder) -> LeaseHolder | None:
    """Take the lease of a stage; None when the stage is complete or somebody runs it."""
    with _locked(folder.path):
        held = folder.lease()
        if folder.done_file.exists() or (held is not None and held.is_alive()):
            return None
        numbers = [attempt.number for attempt in folder.attempts()]
        lease = Lease(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_started=psutil.Process().create_time(),
            attempt=max(numbers, default=0) + 1,
            heartbeat=time.time(),
        )
        write_atomic(folder.path / "lease.json", _json(lease))
        (folder.path / "FAILED.json").unlink(missing_ok=True)
        return LeaseHolder(folder, lease)


@dataclass(frozen=True)
class Store:
    """A runs directory: all stage folders, and what the launcher knows of sweeps and tracking."""

    root: Path

    @property
    def stages(self) -> Path:
        """The root that holds all stage folders."""
        return self.root / "stages"

    @property
    def sweeps(self) -> Path:
        """Plans as they were launched."""
        return self.root / "sweeps"

    @property
    def slurm_files(self) -> Path:
        """Folders of what belongs to SLURM jobs: scripts and what the jobs printed."""
        return self.root / "slurm"

    @property
    def optuna(self) -> Path:
        """Optuna's journal: all studies of searches."""
        return self.root / "optuna.log"

    @property
    def micro_batches(self) -> Path:
        """Micro-batches that fit into memory, by device and model."""
        return self.root / "micro_batches.json"

    @property
    def calibration(self) -> Path:
        """What stages took, one line each; see `orchestration.costs.calibration`."""
        return self.root / "calibration.jsonl"

    @property
    def lost_hosts(self) -> Path:
        """Machines on which workers were lost, one line each time."""
        return self.root / "lost_hosts.jsonl"

    @property
    def tracking(self) -> Path:
        """What was sent to which tracking server."""
        return self.root / "tracking"

    def index(self, stage: str) -> dict[str, StageFolder]:
        """Key -> folder of all stages of one name; one directory listing."""
        folder = self.stages / stage
        if not folder.is_dir():
            return {}
        names = (entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
        return {name.rpartition("-")[2]: StageFolder(folder / name) for name in names}

    def folders(self, stages: Iterable[tuple[str, str, str]]) -> dict[str, StageFolder]:
        """Key -> folder of (stage, key, readable) triples: the existing one, or where it will be.

        The readable part of an existing folder may differ: it is not part of the identity.
        """
        indexes: dict[str, tuple[Path, dict[str, StageFolder]]] = {}
        found = {}
        for stage, key, readable in stages:
            if stage not in indexes:
                indexes[stage] = self.stages / stage, self.index(stage)
            parent, existing = indexes[stage]
            found[key] = existing.get(key) or StageFolder(parent / f"{readable}-{key}")
        return found

    def create(self, spec: Spec) -> StageFolder:
        """The folder of a stage, made if no folder has its key yet, with this spec.

        The spec of a complete stage stays: it says how the stage was run.
        """
        return self.create_all([spec])[spec.key]

    def create_all(self, specs: Iterable[Spec]) -> dict[str, StageFolder]:
        """Key -> folder of many stages; each is made if no folder has its key; see `create`."""
        by_stage: dict[str, list[Spec]] = {}
        for spec in specs:
            by_stage.setdefault(spec.stage, []).append(spec)
        folders: dict[str, StageFolder] = {}
        with ThreadPoolExecutor(CREATORS) as pool:
            for stage, wanted in by_stage.items():
                with locked(self.stages / stage / ".lock"):
                    known = self.index(stage)
                    new = {s.key: self._folder(stage, s.key, s.readable) for s in wanted}
                    found = {key: known.get(key, folder) for key, folder in new.items()}
                    list(pool.map(_fill, (found[s.key] for s in wanted), wanted))
                folders |= found
        return folders

    def _folder(self, stage: str, key: str, readable: str) -> StageFolder:
        return StageFolder(self.stages / stage / f"{readable}-{key}")


def _fill(folder: StageFolder, spec: Spec) -> None:
    for name in ("attempts", "spool", "logs"):
        (folder.path / name).mkdir(parents=True, exist_ok=True)
    file = folder.path / "spec.json"
    # Another launch may want it run in another way: a micro-batch, a file that has moved.
    if not file.exists() or (not folder.is_complete() and folder.spec() != spec):
        write_atomic(file, _json(spec))


def _locked(folder: Path) -> Any:
    return locked(folder / ".lock")


def _json(record: Record) -> str:
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=True)
