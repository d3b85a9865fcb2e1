"""The stage folder: the only owner of file names and of what "done" means.

`<runs>/stages/<stage>/<readable>-<key>/` holds
    spec.json      what to run: stage, config, inputs
    DONE           written last, by atomic rename: the stage is complete
    FAILED.json    why the newest attempt failed; a new attempt removes it
    micro_batch    samples at a time, after memory ran out
    tries.json     attempts in a row that got no further; a launch by the user starts anew
    HELD           why a gate keeps it from starting; the next launch looks anew
    CANCEL         the user wants it stopped; the next launch or resume removes it
    lease.json     who runs it now (`orchestration.runs.leases`)
    attempts/      NNN.json, a record per attempt; NNN/, what a running attempt works on:
                   heartbeat.json, checkpoints/ to go on from, out/ until it is published
    spool/         NNN.jsonl: metrics in the order they were made, and pictures, by attempt
    out/           what later stages read: the published outputs of one attempt
    logs/          what each attempt printed
Nothing else decides whether a stage is complete. An attempt writes only under its own number;
`orchestration.runs.holder` publishes what it made, and only for the holder of the lease.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gigatok.files.durable import steps, sync
from orchestration.runs.files import locked, read_if_there, set_aside, write_atomic
from orchestration.runs.leases import Beat, Lease
from orchestration.runs.records import (
    UnreadableRecord,
    parse_record,
    read_record,
    report_unreadable,
    to_json,
)
from orchestration.runs.stage_records import Attempt, Done, Failure, Spec, Tries

State = Literal["WAITING", "RUNNING", "COMPLETE", "FAILED", "UPSTREAM_FAILED", "PRUNED"]

CREATORS = 16  # stage folders that are made at the same time


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder; every path in it is named here and nowhere else."""

    path: Path

    @property
    def name(self) -> str:
        """`<readable>-<key>`."""
        return self.path.name

    @property
    def key(self) -> str:
        """The key of the stage, which ends the folder's name."""
        return self.path.name.rpartition("-")[2]

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

    def work(self, attempt: int) -> Work:
        """Name the folder in which one attempt works."""
        return Work(self.path / "attempts" / f"{attempt:03d}")

    def works(self) -> list[Work]:
        """List the folders of attempts that have not been cleaned, the newest attempt first."""
        try:
            names = os.listdir(self.path / "attempts")
        except (FileNotFoundError, NotADirectoryError):
            return []
        numbers = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
        return [self.work(number) for number in numbers]

    def newest_checkpoints(self) -> Path | None:
        """Where an interrupted stage goes on: the newest attempt that has checkpoints."""
        return next((w.checkpoints for w in self.works() if w.checkpoints.is_dir()), None)

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
        return sorted(f for f in (self.path / "logs").glob("attempt-*.log") if f.is_file())

    def checkpoint_step(self) -> int:
        """Steps that need not be run again, by the name of the newest checkpoint."""
        folder = self.newest_checkpoints()
        return max(steps(folder), default=0) if folder else 0

    def is_complete(self) -> bool:
        """Whether the stage is complete. An empty DONE is one that a power cut left."""
        try:
            found = os.stat(os.path.join(self.path, "DONE"))
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size > 0

    def spec(self) -> Spec:
        """What the stage runs.

        Raises:
            UnreadableRecord: nobody can say what it was to run; a launch writes it again.
        """
        file = self.path / "spec.json"
        spec = parse_record(file, Spec)
        if spec is None:
            raise UnreadableRecord(file, "it is missing; launch the sweep again to write it")
        return spec

    def known_spec(self) -> Spec | None:
        """What the stage runs, where that can be read."""
        return read_record(self.path / "spec.json", Spec)

    def done(self) -> Done | None:
        """The record of completion, None while there is none."""
        return read_record(self.done_file, Done)

    def damage(self, *, thorough: bool = False) -> str | None:
        """Say what is wrong with the outputs of a complete stage; None: nothing.

        Args:
            thorough: compare contents with the hashes in DONE too, not sizes alone.
        """
        done = self.done()
        if done is None:
            return "its DONE cannot be read"
        for name, size in done.artifacts.items():
            try:
                found = os.stat(self.out / name)
            except OSError:
                return f"out/{name} is missing"
            if not stat.S_ISREG(found.st_mode):
                return f"out/{name} is no file"
            if found.st_size != size:
                return f"out/{name} has {found.st_size} bytes instead of {size}"
            if thorough and self._is_changed(name, done):
                return f"out/{name} is not what the stage wrote: its sha256 differs"
        return None

    def _is_changed(self, name: str, done: Done) -> bool:
        with (self.out / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return found != done.hashes.get(name, found)

    def failure(self) -> Failure | None:
        """Why the newest attempt failed; None if it did not."""
        return read_record(self.path / "FAILED.json", Failure)

    def clear_failure(self) -> None:
        """Forget why the newest attempt failed: the stage is tried again."""
        (self.path / "FAILED.json").unlink(missing_ok=True)

    def tries(self) -> Tries:
        """How often in a row the stage got no further."""
        return read_record(self.path / "tries.json", Tries) or Tries()

    def write_tries(self, tries: Tries) -> None:
        """Record how often in a row the stage got no further."""
        write_atomic(self.path / "tries.json", to_json(tries))

    def micro_batch(self) -> int | None:
        """Samples at a time that fit into memory, where the configured number did not."""
        text = self._text("micro_batch")
        if text is None or (text.strip().isdecimal() and len(text) < 20):
            return None if text is None else int(text)
        file = self.path / "micro_batch"
        report_unreadable(file, f"{file} holds {text[:40]!r} instead of a number of samples")
        return None

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
        return self._text("HELD")

    def cancel(self, who: str) -> None:
        """Ask whoever runs the stage to stop, and nobody to start it; makes the folder.

        Written before anybody is signalled, so that the end is not taken for a preemption.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / "CANCEL", who)

    def cancelled_by(self) -> str | None:
        """Who cancelled the stage; None: nobody did."""
        return self._text("CANCEL")

    def _text(self, name: str) -> str | None:
        """Read a marker; None where it is missing or no file."""
        try:
            content = read_if_there(self.path / name)
        except OSError as error:
            report_unreadable(self.path / name, f"{self.path / name}: {error.strerror}")
            return None
        return None if content is None else content.decode(errors="replace")

    def lease(self) -> Lease | None:
        """The lease with its newest heartbeat, alive or not.

        None where nobody holds one, and where it cannot be read: what a power cut left of a
        lease keeps nobody from running the stage.
        """
        lease = read_record(self.path / "lease.json", Lease)
        if lease is None:
            return None
        beat = read_record(self.work(lease.attempt).heartbeat, Beat)
        return lease if beat is None else lease.model_copy(update=dict(beat))

    def attempts(self) -> list[Attempt]:
        """All attempts whose records can be read, oldest first.

        DONE says which attempt completed the stage; a record cannot know whether its worker lived
        to write DONE.
        """
        found = [read_record(f, Attempt) for f in sorted((self.path / "attempts").glob("*.json"))]
        known = [attempt for attempt in found if attempt is not None]
        done = self.done() if self.is_complete() else None
        return [_judged(attempt, done) for attempt in known]

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
        write_atomic(self.path / "attempts" / f"{attempt.number:03d}.json", to_json(attempt))

    def write_failure(self, failure: Failure) -> None:
        """Record why the newest attempt failed."""
        write_atomic(self.path / "FAILED.json", to_json(failure))


@dataclass(frozen=True)
class Work:
    """The folder in which one attempt works; nobody else writes into it."""

    path: Path

    @property
    def heartbeat(self) -> Path:
        """The newest sign of life, and the progress."""
        return self.path / "heartbeat.json"

    @property
    def checkpoints(self) -> Path:
        """Where the stage goes on when it is interrupted."""
        return self.path / "checkpoints"

    @property
    def out(self) -> Path:
        """Outputs in the making."""
        return self.path / "out"


def _judged(attempt: Attempt, done: Done | None) -> Attempt:
    """Correct the outcome of an attempt by what DONE says."""
    completed = done is not None and done.attempt == attempt.number
    if completed and attempt.outcome is None:
        assert done is not None
        return attempt.model_copy(update={"outcome": "complete", "ended": done.finished})
    if attempt.outcome == "complete" and not completed:
        return attempt.model_copy(update={"outcome": None, "ended": None})
    return attempt


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
        found = (entry for entry in os.scandir(folder) if not entry.name.startswith("."))
        names = (entry.name for entry in found if entry.is_dir())
        return {name.rpartition("-")[2]: StageFolder(folder / name) for name in names}

    def stage_folders(self) -> Iterator[StageFolder]:
        """All stage folders, in the order of their names; files that lie among them are none."""
        for path in sorted(self.stages.glob("*/[!.]*")):
            if path.is_dir():
                yield StageFolder(path)

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
                    # The names of new stage folders; what is in them is durable already.
                    sync(self.stages / stage)
                folders |= found
        return folders

    def _folder(self, stage: str, key: str, readable: str) -> StageFolder:
        return StageFolder(self.stages / stage / f"{readable}-{key}")


def _fill(folder: StageFolder, spec: Spec) -> None:
    for name in ("attempts", "spool", "logs"):
        if os.path.lexists(folder.path / name) and not (folder.path / name).is_dir():
            set_aside(folder.path / name)
        (folder.path / name).mkdir(parents=True, exist_ok=True)
    file = folder.path / "spec.json"
    # Another launch may want it run in another way: a micro-batch, a file that has moved. One that
    # cannot be read is written again: this launch knows what it must hold.
    known = read_record(file, Spec)
    if known is None or (not folder.is_complete() and known != spec):
        write_atomic(file, to_json(spec))
