"""Stage folder: the only owner of its file names, and of what "complete" means.

`<runs>/stages/<stage>/<readable>-<key>/` holds
    spec.json      what to run: stage, config, inputs
    DONE           written last, by atomic rename: the stage is complete
    FAILED.json    why the newest attempt failed; a new attempt removes it
    micro_batch    samples per forward pass, after memory ran out
    tries.json     attempts in a row without progress; a launch by the user resets them
    HELD           why a gate keeps it from starting; the next launch checks again
    CANCEL         the user wants it stopped; the next launch or resume removes it
    lease.json     the worker that runs it now (`orchestration.runs.leases`)
    attempts/      NNN.json, a record per attempt; NNN/, the folder of a running attempt:
                   heartbeat.json, checkpoints/ to resume from, out/ until it is published
    spool/         NNN.jsonl: metrics in the order of their making, and pictures, by attempt
    out/           the published outputs of one attempt, which later stages read
    logs/          the printed output of each attempt
Nothing else decides whether a stage is complete. An attempt writes only under its own number;
`orchestration.runs.holder` publishes its outputs, and only for the holder of the lease.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
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

CREATORS = 16  # threads that make stage folders: on a shared file system each waits for its server


@dataclass(frozen=True)
class StageFolder:
    """Folder of one stage; every path in it is named here and nowhere else.

    Attributes:
        parent: folder of all stages of its kind.
        name: name of the folder, `<readable>-<key>`.
    """

    parent: Path
    name: str

    @classmethod
    def at(cls, path: Path) -> StageFolder:
        """Return the stage folder at a path."""
        return cls(path.parent, path.name)

    # Made when somebody asks: a plan has ten thousands of folders and looks into few of them.
    @cached_property
    def path(self) -> Path:
        """Path of the folder."""
        return self.parent / self.name

    @property
    def key(self) -> str:
        """Key of the stage, the last part of the folder's name."""
        # Keys are hexadecimal, so the last hyphen always separates the readable part from the key.
        return self.name.rpartition("-")[2]

    @property
    def store(self) -> Store:
        """Runs directory that the folder is in."""
        return Store(self.parent.parent.parent)

    @property
    def done_file(self) -> Path:
        """File that marks the stage complete."""
        return self.path / "DONE"

    @property
    def out(self) -> Path:
        """Outputs that later stages read."""
        return self.path / "out"

    def work(self, attempt: int) -> AttemptFolder:
        """Name the folder of one attempt."""
        return AttemptFolder(self.path / "attempts" / f"{attempt:03d}")

    def works(self) -> list[AttemptFolder]:
        """List the folders of attempts that still exist, the newest attempt first."""
        try:
            names = os.listdir(self.path / "attempts")
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Attempts also have a record, NNN.json, in the same folder; only the folders are all
        # digits.
        numbers = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
        return [self.work(number) for number in numbers]

    def newest_checkpoints(self) -> Path | None:
        """Find the checkpoints to resume from: those of the newest attempt that has any."""
        return next((w.checkpoints for w in self.works() if w.checkpoints.is_dir()), None)

    @property
    def spool(self) -> Path:
        """Folder of metrics and pictures that wait to be sent to MLflow."""
        return self.path / "spool"

    def log(self, attempt: int, rank: int = 0) -> Path:
        """Name the log of an attempt; processes other than rank 0 have logs of their own."""
        name = f"attempt-{attempt:03d}.log"
        return self.path / "logs" / (f"rank-{rank:03d}-{name}" if rank else name)

    def logs(self) -> list[Path]:
        """List the logs of all attempts, oldest first; only rank 0's of several processes."""
        return sorted(f for f in (self.path / "logs").glob("attempt-*.log") if f.is_file())

    def checkpoint_step(self) -> int:
        """Return the step of the newest checkpoint: earlier steps need not be run again."""
        folder = self.newest_checkpoints()
        return max(steps(folder), default=0) if folder else 0

    def is_complete(self) -> bool:
        """Tell whether the stage is complete; after a power cut DONE may exist but be empty."""
        return self.mark() is not None

    def mark(self) -> str | None:
        """Return what tells this DONE from one that replaces it; None: it is not complete."""
        try:
            # One system call and no parsing: a plan of 10,000 trials asks this of every stage.
            found = os.stat(os.path.join(self.path, "DONE"))
        except OSError:
            return None
        is_written = stat.S_ISREG(found.st_mode) and found.st_size > 0
        return f"{found.st_size}:{found.st_mtime_ns}" if is_written else None

    def spec(self) -> Spec:
        """Read what the stage runs.

        Raises:
            UnreadableRecord: spec.json is missing or damaged; a launch writes it again.
        """
        file = self.path / "spec.json"
        spec = parse_record(file, Spec)
        if spec is None:
            raise UnreadableRecord(file, "it is missing; launch the sweep again to write it")
        return spec

    def known_spec(self) -> Spec | None:
        """Read what the stage runs; None if that cannot be read."""
        return read_record(self.path / "spec.json", Spec)

    def done(self) -> Done | None:
        """Read the record of completion; None if there is none."""
        return read_record(self.done_file, Done)

    def damage(self, *, thorough: bool = False) -> str | None:
        """Say what is wrong with the outputs of a complete stage; None: nothing.

        Args:
            thorough: also compare the contents with the hashes in DONE, not only the sizes.
        """
        done = self.done()
        if done is None:
            return "its DONE cannot be read"
        for name, size in done.artifacts.items():
            # By size first: a launch checks every stage, and hashing terabytes would take hours.
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
        # Stages of earlier code have no hashes; without one a file counts as unchanged.
        return found != done.hashes.get(name, found)

    def failure(self) -> Failure | None:
        """Read why the newest attempt failed; None if it did not."""
        return read_record(self.path / "FAILED.json", Failure)

    def clear_failure(self) -> None:
        """Remove the record of the newest attempt's failure: the stage is tried again."""
        (self.path / "FAILED.json").unlink(missing_ok=True)

    def tries(self) -> Tries:
        """Read how many attempts in a row made no progress."""
        return read_record(self.path / "tries.json", Tries) or Tries()

    def write_tries(self, tries: Tries) -> None:
        """Record how many attempts in a row made no progress."""
        write_atomic(self.path / "tries.json", to_json(tries))

    def micro_batch(self) -> int | None:
        """Read the samples per forward pass that fit into memory; None: as configured."""
        text = self._text("micro_batch")
        # Longer numbers are damage, and `int` raises for more than 4300 digits.
        if text is None or (text.strip().isdecimal() and len(text) < 20):
            return None if text is None else int(text)
        file = self.path / "micro_batch"
        report_unreadable(file, f"{file} holds {text[:40]!r} instead of a number of samples")
        return None

    def write_micro_batch(self, size: int) -> None:
        """Let later attempts process fewer samples at a time; the stage keeps its key."""
        write_atomic(self.path / "micro_batch", str(size))

    def clear_tries(self) -> None:
        """Reset the counts, a cancellation and a hold: the user decided to run the stage."""
        (self.path / "tries.json").unlink(missing_ok=True)
        (self.path / "CANCEL").unlink(missing_ok=True)
        (self.path / "HELD").unlink(missing_ok=True)

    def hold(self, why: str) -> None:
        """Record why a gate keeps the stage from starting."""
        write_atomic(self.path / "HELD", why)

    def held(self) -> str | None:
        """Read why a gate keeps the stage from starting; None: no gate does."""
        return self._text("HELD")

    def cancel(self, who: str) -> None:
        """Ask the worker to stop and others not to start the stage; makes the folder if needed.

        Write this before any worker is signalled, so that its end is not taken for a preemption.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / "CANCEL", who)

    def cancelled_by(self) -> str | None:
        """Read who cancelled the stage; None: nobody did."""
        return self._text("CANCEL")

    def _text(self, name: str) -> str | None:
        """Read a marker; None if it is missing or not a file."""
        try:
            content = read_if_there(self.path / name)
        except OSError as error:
            report_unreadable(self.path / name, f"{self.path / name}: {error.strerror}")
            return None
        return None if content is None else content.decode(errors="replace")

    def lease(self) -> Lease | None:
        """Read the lease with its newest heartbeat, whether the holder is alive or not.

        None if there is no lease or it cannot be read: a damaged lease, left by a power cut, keeps
        nobody from running the stage.
        """
        lease = read_record(self.path / "lease.json", Lease)
        if lease is None:
            return None
        # The beat lies in the attempt's own folder: a late worker that writes one there cannot
        # refresh a successor's lease.
        beat = read_record(self.work(lease.attempt).heartbeat, Beat)
        return lease if beat is None else lease.model_copy(update=dict(beat))

    def attempts(self) -> list[Attempt]:
        """List all attempts whose records can be read, oldest first.

        DONE says which attempt completed the stage; an attempt's record cannot know whether its
        worker lived to write DONE.
        """
        found = [read_record(f, Attempt) for f in sorted((self.path / "attempts").glob("*.json"))]
        known = [attempt for attempt in found if attempt is not None]
        done = self.done() if self.is_complete() else None
        return [_judged(attempt, done) for attempt in known]

    def last_attempt(self) -> Attempt | None:
        """Read the newest attempt; None before the first."""
        attempts = self.attempts()
        return attempts[-1] if attempts else None

    def state(self) -> State:
        """Read the state off the folder; only the plan knows `UPSTREAM_FAILED` and `PRUNED`."""
        if self.is_complete():
            return "COMPLETE"
        lease = self.lease()
        if lease is not None and lease.is_alive():
            return "RUNNING"
        # A worker writes DONE before it removes its lease, so the lease may be gone because the
        # stage completed between the two reads.
        if self.is_complete():
            return "COMPLETE"
        return "FAILED" if (self.path / "FAILED.json").exists() else "WAITING"

    def write_attempt(self, attempt: Attempt, *, flush_name: bool = True) -> None:
        """Create or replace an attempt's record; see `write_atomic`."""
        file = self.path / "attempts" / f"{attempt.number:03d}.json"
        write_atomic(file, to_json(attempt), flush_name=flush_name)

    def write_failure(self, failure: Failure) -> None:
        """Record why the newest attempt failed."""
        write_atomic(self.path / "FAILED.json", to_json(failure))


@dataclass(frozen=True)
class AttemptFolder:
    """Folder of one attempt; only that attempt's worker writes into it."""

    path: Path

    @property
    def heartbeat(self) -> Path:
        """File with the newest sign of life, and the progress."""
        return self.path / "heartbeat.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints, from which an interrupted stage resumes."""
        return self.path / "checkpoints"

    @property
    def out(self) -> Path:
        """Outputs until they are published."""
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
    """Runs directory: all stage folders, and the launcher's records of sweeps and tracking."""

    root: Path

    @property
    def stages(self) -> Path:
        """Root of all stage folders."""
        return self.root / "stages"

    @property
    def sweeps(self) -> Path:
        """Root of the recorded plans of all launches."""
        return self.root / "sweeps"

    @property
    def plugins(self) -> Path:
        """Copies of the plug-ins that sweeps gave by their files, in folders named by hash."""
        return self.root / "plugins"

    def job_files(self, backend: str) -> Path:
        """Folders, by name, of what belongs to queued jobs: scripts and what the jobs printed."""
        return self.root / backend

    @property
    def optuna(self) -> Path:
        """Journal of Optuna, with the studies of all searches."""
        return self.root / "optuna.log"

    @property
    def micro_batches(self) -> Path:
        """Micro-batches that fit into memory, by device and model."""
        return self.root / "micro_batches.json"

    @property
    def calibration(self) -> Path:
        """Measured costs of past stages, a line each; see `orchestration.costs.calibration`."""
        return self.root / "calibration.jsonl"

    @property
    def lost_hosts(self) -> Path:
        """Machines on which workers were lost, a line for each loss."""
        return self.root / "lost_hosts.jsonl"

    @property
    def tracking(self) -> Path:
        """Records of what was sent to which tracking server."""
        return self.root / "tracking"

    def index(self, stage: str) -> dict[str, StageFolder]:
        """Map keys to the folders of all stages of one name, with one directory listing."""
        folder = self.stages / stage
        if not folder.is_dir():
            return {}
        # `scandir` reports the type with the name, so thousands of stages need no `stat` each.
        found = (entry for entry in os.scandir(folder) if not entry.name.startswith("."))
        names = (entry.name for entry in found if entry.is_dir())
        return {name.rpartition("-")[2]: StageFolder(folder, name) for name in names}

    def stage_folders(self) -> Iterator[StageFolder]:
        """Yield all stage folders in the order of their names; skip stray files."""
        for path in sorted(self.stages.glob("*/[!.]*")):
            if path.is_dir():
                yield StageFolder.at(path)

    def folders(self, stages: Iterable[tuple[str, str, str]]) -> dict[str, StageFolder]:
        """Map the keys of (stage, key, readable) triples to folders, existing or still to be made.

        The readable part of an existing folder may differ: it is not part of the identity.
        """
        return self.find(stages)[0]

    def find(
        self, stages: Iterable[tuple[str, str, str]]
    ) -> tuple[dict[str, StageFolder], list[str]]:
        """Map keys to folders as `folders` does, and list the keys whose folder exists."""
        indexes: dict[str, tuple[Path, dict[str, StageFolder]]] = {}
        found, existing = {}, []
        for stage, key, readable in stages:
            if stage not in indexes:
                indexes[stage] = self.stages / stage, self.index(stage)
            parent, known = indexes[stage]
            folder = known.get(key)
            if folder is not None:
                existing.append(key)
            found[key] = folder or StageFolder(parent, f"{readable}-{key}")
        return found, existing

    def create(self, spec: Spec) -> StageFolder:
        """Return the folder of a stage with this spec, and make it if no folder has its key.

        The spec of a complete stage is kept: it says how the stage was run.
        """
        return self.create_all([spec])[spec.key]

    def create_all(self, specs: Iterable[Spec]) -> dict[str, StageFolder]:
        """Make the folders of many stages, as `create` does; returns key -> folder."""
        by_stage: dict[str, list[Spec]] = {}
        for spec in specs:
            by_stage.setdefault(spec.stage, []).append(spec)
        folders: dict[str, StageFolder] = {}
        with ThreadPoolExecutor(CREATORS) as pool:
            for stage, wanted in by_stage.items():
                # Per stage name: two launches must not both make a folder for one key, under two
                # names.
                with locked(self.stages / stage / ".lock"):
                    known = self.index(stage)
                    parent = self.stages / stage
                    new = {s.key: StageFolder(parent, f"{s.readable}-{s.key}") for s in wanted}
                    found = {key: known.get(key, folder) for key, folder in new.items()}
                    # Consumed, so that an error in a thread is raised here.
                    list(pool.map(_fill, (found[s.key] for s in wanted), wanted))
                    # The names of new stage folders; what is in them is durable already.
                    sync(self.stages / stage)
                folders |= found
        return folders


def _fill(folder: StageFolder, spec: Spec) -> None:
    for name in ("attempts", "spool", "logs"):
        # A damaged runs directory may hold a file here; it must not stop the stage for ever.
        if os.path.lexists(folder.path / name) and not (folder.path / name).is_dir():
            set_aside(folder.path / name)
        (folder.path / name).mkdir(parents=True, exist_ok=True)
    file = folder.path / "spec.json"
    # A launch may change how an unfinished stage is run (micro-batch, paths of moved files). An
    # unreadable spec is replaced, since this launch knows what it must hold.
    known = read_record(file, Spec)
    if known is None or (not folder.is_complete() and known != spec):
        write_atomic(file, to_json(spec))
