"""Protocols of backends: what runs stages, attached to the launcher or detached from it.

A backend starts `python -m orchestration.worker STAGE_DIR` somewhere, once per process of the
stage, and says when that is over. What became of the stage is in its folder, and what follows
from an end is decided by `orchestration.policy.faults`: a backend retries nothing.

To add one, write a module with a `BackendSpec` called `BACKEND`, and name it in
`orchestration.backends.BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard

from orchestration.backends.places import Places
from orchestration.exits import EXIT_REFUSED
from orchestration.policy.ended import Ended
from orchestration.policy.profile import CheckOptions, Profile, Request
from orchestration.runs.state import StageFolder, Store


@dataclass(frozen=True)
class Job:
    """Submitted stage; `handle` is the backend's own, and text for detached backends."""

    folder: StageFolder
    handle: Any


class Infeasible(ValueError):
    """Refusal of a request that this backend could never fulfil."""

    exit_code = EXIT_REFUSED


class QueueFull(OSError):
    """Refusal of more stages for now; later there may be room."""


class NoAnswer(ValueError):
    """Silence of a scheduler: what was asked may have happened, or not."""


class DependencyOver(ValueError):
    """Refusal of a job because one that it should wait for has ended meanwhile."""


@dataclass(frozen=True)
class Capabilities:
    """Abilities of a backend beyond running a stage.

    Attributes:
        detached: jobs go on when the launcher ends; the backend is a `DetachedBackend`.
        time_limits: a job that exceeds its time is stopped, with a warning before.
    """

    detached: bool
    time_limits: bool


class Backend(Protocol):
    """Runs `orchestration.worker` on stage folders."""

    @property
    def capabilities(self) -> Capabilities:
        """Say what it offers."""

    def warm_up(self) -> None:
        """Begin what takes time before the first job; returns at once."""

    def free_slots(self) -> int:
        """Count the jobs that may be submitted now."""

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
        """Return the end of a job; None while it may still run or start."""

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Return once one of these running jobs may have ended, or after so many seconds.

        A backend that cannot be told of an end sleeps.
        """

    def cancel(self, job: Job) -> None:
        """Ask the worker to save a checkpoint and stop; harmless when repeated or too late."""

    def logs(self, job: Job) -> list[Path]:
        """List what the backend itself wrote about a job, beside the attempts' own logs."""

    def close(self) -> None:
        """Give everything back. Jobs still running are killed, unless they are detached."""


# Backends whose jobs outlive the launcher


@dataclass(frozen=True)
class Dependency:
    """Jobs that every element of a job array waits for.

    Where a job that has to complete ends otherwise, the scheduler cancels what waits for it.

    Attributes:
        complete: handles of jobs that all elements need to complete.
        aligned: arrays of which element i needs element i to complete.
        over: jobs and arrays that must have ended, however they did.
    """

    complete: tuple[str, ...] = ()
    aligned: tuple[str, ...] = ()
    over: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to wait for."""
        return bool(self.complete or self.aligned or self.over)


@dataclass(frozen=True)
class JobStatus:
    """Answer of a scheduler about one job.

    Attributes:
        state: in the scheduler's words, such as `PENDING`; users read it.
        ended: None while the job may still run or start.
        reason: why it waits, in the scheduler's words; empty: it does not say; None: for the
            jobs that it depends on.
    """

    state: str
    ended: Ended | None = None
    # Three cases, because `status` prints them differently: a job that waits for other jobs is
    # explained by the names of their stages, which the scheduler does not know.
    reason: str | None = ""


class DetachedBackend(Backend, Protocol):
    """Scheduler whose jobs go on, and wait for each other, without the launcher.

    `orchestration.backends.detached` queues whole plans with it and looks after them. Jobs have
    unique names and ids; a handle is `ID`, or `ID_INDEX` of an element of an array.

    Jobs apply the failure policies themselves, because nobody else may be there: where a worker
    ends without a result, its job asks `faults.after_end`, and starts it again unless the stage
    has failed by that. A failure that is on record when a job is over stands.
    """

    @property
    def name(self) -> str:
        """Name in the registry: what jobs need to connect to the same scheduler again."""

    @property
    def parallelism(self) -> int | None:
        """Limit of stages that run at the same time; None: any number."""

    def largest_array(self) -> int:
        """Count the elements that an array can have; 1 where there are no arrays.

        Raises:
            ValueError: the scheduler does not answer.
        """

    def submit_array(
        self,
        folders: Sequence[StageFolder],
        request: Request,
        *,
        name: str,
        after: Dependency,
        parallelism: int | None = None,
    ) -> list[Job]:
        """Queue stages that ask for the same as one job array; one alone is a plain job.

        The jobs run the code as it is now, whatever becomes of the source: scripts `*.sh` in the
        folder `store.job_files(backend) / name` name the snapshot, which `gc` therefore keeps.

        Args:
            folders: the stages, in the order of the array's indices.
            request: what each of them asks for.
            name: the jobs' name, new with every call; also names the folder of their files.
            after: what they wait for.
            parallelism: elements that run at the same time at most; None: the backend's limit.

        Raises:
            QueueFull: the user's limit of submitted jobs is reached; none of these was queued.
            NoAnswer: whether they were queued is not known.
            DependencyOver: a job that they should wait for ended too early.
            ValueError: the scheduler refuses; says what and why.
        """

    def submit_controller(self, command: Sequence[str], name: str, delay: int) -> str:
        """Queue a small job that runs a command from the snapshot; returns its id.

        Args:
            command: what the job runs.
            name: unique.
            delay: seconds before it may start; `start_after` overrules it.

        Raises:
            QueueFull, NoAnswer, ValueError: as `submit_array`.
        """

    def start_after(self, controller: str, jobs: Iterable[str]) -> None:
        """Let a controller start as soon as all these jobs and arrays are over, however they end.

        Raises:
            ValueError: the scheduler refuses, because the controller runs already.
        """

    def own_job(self) -> str | None:
        """Return the id of the job that this process runs in; None: it runs in none."""

    def find(self, name: str) -> str | None:
        """Return the id of a job or array by its name, queued or over; None: there is none.

        Raises:
            ValueError: the queue cannot be read.
        """

    def is_whole(self, name: str, handles: Iterable[str]) -> bool:
        """Tell whether all that these jobs read was in place before their launcher ended."""

    def discard(self, name: str) -> None:
        """Delete the files of a submission that was refused."""

    def listed(self) -> Mapping[str, JobStatus] | None:
        """Ask for the user's whole queue, by handle; None: the scheduler does not answer.

        Jobs that ended a short time ago may be listed; a job that is not has ended or is very new.
        """

    def statuses(self, jobs: Sequence[Job]) -> Mapping[str, JobStatus]:
        """Ask, by handle, about jobs that may have ended long ago; what is unknown is left out.

        Raises:
            ValueError: the queue cannot be read.
        """

    def cancel_jobs(self, handles: Iterable[str], *, waiting_only: bool = False) -> None:
        """Cancel jobs, whole arrays and elements; harmless when repeated or too late.

        Args:
            handles: of jobs and elements, or ids of arrays.
            waiting_only: what runs already goes on.
        """


def is_detached(backend: Backend) -> TypeGuard[DetachedBackend]:
    """Tell whether jobs of a backend go on without the launcher."""
    return backend.capabilities.detached


# What the registry knows of a backend

Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """Result of one check of `doctor`.

    Attributes:
        needed_by: backend that cannot do without; empty: all of them.
        text: what was found, and what to do where it is not ok.
    """

    name: str
    level: Level
    text: str
    needed_by: str = ""


@dataclass(frozen=True)
class Checkup:
    """Request of `doctor` to a backend.

    Attributes:
        store: the runs directory.
        profile: what is asked of the cluster.
        look: for the backend that the user names, if it is detached: a command that looks at the
            runs directory, MLflow and GPUs from the node that runs it, and prints its findings as
            JSON in the last line. None: no node needs to be asked.
    """

    store: Store
    profile: Profile
    look: Sequence[str] | None


# An empty iterator as the default, so that `doctor` need not tell backends with checks from those
# without.
def find_nothing(checkup: Checkup) -> Iterator[Finding]:
    """Examine a backend that has nothing of its own to look at."""
    return iter(())


@dataclass(frozen=True)
class BackendSpec:
    """Registered backend. Its module imports little: `connect` imports what is heavy.

    Attributes:
        connect: makes the backend of `--jobs`, a profile and a runs directory; raises ValueError
            where `jobs` does not suit it.
        detached: `connect` makes a `DetachedBackend`.
        check_options: raises ValueError for what may not stand below the key of the backend's
            name in a profile; None: profiles have no such key.
        examine: yields what `doctor` should know of the backend on this machine.
        runs_here: tells whether stages run on this machine, and so find its device and its files.
        places: shares out this machine among `--jobs` stages; None: stages get what the profile
            asks for.
    """

    connect: Callable[[int | None, Profile, Store], Backend]
    # Repeated from `Capabilities`, because `doctor` asks without connecting, which would import
    # Ray or submitit.
    detached: bool = False
    check_options: CheckOptions | None = None
    examine: Callable[[Checkup], Iterator[Finding]] = find_nothing
    runs_here: Callable[[Profile], bool] = lambda profile: False
    places: Callable[[int | None, Profile], Places] | None = None
