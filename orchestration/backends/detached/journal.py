"""Journal of what schedulers were given: written before they are asked, and when they answer.

`<runs>/journal/<name>.json` is one job or job array, under the unique name that the scheduler
knows it by. A launcher that is killed in between leaves an intent without a job id; the next one
looks the name up, so that no stage is lost or queued twice.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from gigatok.config.fields.base import UnixTime
from orchestration.backends.base import DetachedBackend, Job, NoAnswer, QueueFull
from orchestration.runs.files import locked, write_atomic
from orchestration.runs.records import Record, read_record
from orchestration.runs.state import StageFolder, Store

FORMAT: Literal[2] = 2
"""Raised when entries change; see `Submission.upgraded`."""
CONTROLLER = "controller"
"""Kind of the job that looks after a sweep; other submissions are of a kind of stage."""


class Submission(Record):
    """Job or job array that a scheduler was asked to take.

    Attributes:
        name: unique; the job's name.
        kind: the stage, or `CONTROLLER`.
        sweep: name of the sweep.
        plan: key of the plan.
        folders: `<stage>/<folder name>` of each element, by index; of all that a controller
            looks after.
        width: elements at the same time at most; None: any number.
        time: of the intent, UNIX seconds.
        job: the scheduler's id; None: it was not, or not yet, known.
        backend: the scheduler, by its name in the registry.
        format: of the entry.
    """

    name: str
    kind: str
    sweep: str
    plan: str
    folders: list[str]
    width: int | None
    time: UnixTime
    job: str | None = None
    backend: str
    format: Literal[2]

    @model_validator(mode="before")
    @classmethod
    def upgraded(cls, entry: Any) -> Any:
        """Complete an entry of an earlier format, whose jobs would else be queued again."""
        # Format 1 had no number. Before there were other schedulers it named no backend either.
        if isinstance(entry, dict) and "format" not in entry:
            return {"backend": "slurm", **entry, "format": FORMAT}
        return entry

    def handles(self) -> dict[str, str]:
        """Map the folders to the scheduler's handles of their jobs."""
        # The folders of a controller are those that it looks after, not those that it runs.
        if self.job is None or self.kind == CONTROLLER:
            return {}
        # As `DetachedBackend.submit_array` promises: one stage alone is a plain job, without an
        # index.
        if len(self.folders) == 1:
            return {self.folders[0]: self.job}
        return {folder: f"{self.job}_{index}" for index, folder in enumerate(self.folders)}


class Journal:
    """Record of the submissions to one backend, or to any, that may still matter."""

    def __init__(self, store: Store, backend: str | None = None) -> None:
        """Open the journal.

        Args:
            store: the runs directory.
            backend: leave out what was submitted to others; None: all can be read, and nothing
                can be submitted.
        """
        self._backend = backend
        self._store = store
        self._root = store.root / "journal"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let one launcher or controller at a time decide what is queued."""
        with locked(self._root / ".lock"):
            yield

    def intend(
        self,
        kind: str,
        sweep: str,
        plan: str,
        folders: Iterable[StageFolder] = (),
        width: int | None = None,
    ) -> Submission:
        """Record what is about to be submitted, under a new name.

        Args:
            kind: of the stages, or `CONTROLLER`.
            sweep: name of the sweep.
            plan: key of the plan.
            folders: of the stages, in the order of the array's indices.
            width: elements at the same time at most; None: any number.
        """
        assert self._backend is not None
        submission = Submission(
            # Random and not counted: two launchers on two hosts share no counter, and a scheduler
            # may remember old names for days.
            name=f"{_plain(sweep)}-{kind}-{uuid.uuid4().hex[:10]}",
            kind=kind,
            sweep=sweep,
            plan=plan,
            folders=[str(folder.path.relative_to(self._store.stages)) for folder in folders],
            width=width,
            time=time.time(),
            backend=self._backend,
            format=FORMAT,
        )
        # Before the scheduler is asked: a launcher that dies in between leaves a name to look up.
        self._write(submission)
        return submission

    @contextmanager
    def refusable(self, intent: Submission, backend: DetachedBackend) -> Iterator[None]:
        """Forget an intent and its files where the scheduler refuses meanwhile.

        Where it does not answer, the intent stays: the job may be queued, which `settle_intents`
        finds out.
        """
        try:
            yield
        except NoAnswer:
            raise
        except (QueueFull, ValueError):
            self.forget(intent)
            backend.discard(intent.name)
            raise

    def acknowledge(self, submission: Submission, job: str) -> Submission:
        """Record the id that the scheduler gave."""
        known = submission.model_copy(update={"job": job})
        self._write(known)
        return known

    def forget(self, submission: Submission) -> None:
        """Remove what is not queued, or whose stages are complete or queued anew."""
        self._file(submission.name).unlink(missing_ok=True)

    def submissions(self) -> list[Submission]:
        """List all that can be read, oldest first.

        A job that this leaves out may be queued a second time; the lease lets one of the two run.
        """
        # A record that cannot be read is left out, not an error: one torn file must not keep every
        # launch of this runs directory from starting.
        found = (read_record(file, Submission) for file in self.files())
        known = [submission for submission in found if submission is not None]
        mine = [one for one in known if self._backend in (None, one.backend)]
        return sorted(mine, key=lambda submission: submission.time)

    def by_backend(self) -> dict[str, Journal]:
        """Open a journal of its own for every backend that has submissions."""
        names = sorted({submission.backend for submission in self.submissions()})
        return {name: Journal(self._store, name) for name in names}

    def files(self) -> list[Path]:
        """List the records of all submissions, readable or not."""
        return sorted(self._root.glob("*.json"))

    def jobs(self) -> dict[str, Job]:
        """Map the keys of stages to their newest jobs, which may be over."""
        jobs = {}
        for submission in self.submissions():  # oldest first, so that the newest job stays
            for folder, handle in submission.handles().items():
                stage = StageFolder.at(self._store.stages / folder)
                jobs[key_of(folder)] = Job(stage, handle)
        return jobs

    def controllers(self, plan: str | None = None) -> list[Submission]:
        """List the jobs that look after a plan, or any plan; they may be over."""
        return [
            submission
            for submission in self.submissions()
            if submission.kind == CONTROLLER and plan in (None, submission.plan)
        ]

    def prune(self) -> None:
        """Forget arrays all of whose stages are complete, or have a newer job."""
        submissions = self.submissions()
        # A stage that is queued anew belongs to its newest job alone.
        newest = {folder: s.name for s in submissions for folder in s.handles()}
        for submission in submissions:
            mine = [f for f in submission.handles() if newest[f] == submission.name]
            stages = (StageFolder.at(self._store.stages / folder) for folder in mine)
            # Intents and controllers have no handles and stay: they are forgotten by whoever
            # settles or replaces them. An array whose stages all have a newer job has no stage of
            # its own left, and `all` of nothing is true.
            if submission.handles() and all(stage.is_complete() for stage in stages):
                self.forget(submission)

    def _write(self, submission: Submission) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file(submission.name), submission.model_dump_json())

    def _file(self, name: str) -> Path:
        return self._root / f"{name}.json"


def key_of(folder: str) -> str:
    """Return the key of a stage by the name of its folder."""
    return folder.rpartition("-")[2]


def _plain(name: str) -> str:
    """Reduce a name to the letters that job names and lists of them may have."""
    # A comma would split the name in `squeue --name`. 24 characters leave room for kind and random
    # part in what squeue shows.
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:24]
