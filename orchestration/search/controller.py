"""The job that asks and tells on a cluster: a search goes on when nobody is logged in.

It holds nothing that is not on disk. Before it does anything it queues its successor, to start
when this job is over, however that comes: killed, out of time, or lost with its node. The
successor finds the trials in the study, their stages in the journal and in their folders.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestration.backends.base import Capabilities, Ended, Job, NoAnswer, QueueFull
from orchestration.backends.slurm import SlurmBackend
from orchestration.backends.slurm_queue import ask_squeue
from orchestration.backends.slurm_scheduler import cancel_jobs, start_after, submit_controller
from orchestration.cluster.controller import launched_plan
from orchestration.cluster.detached import print_ways_on
from orchestration.cluster.journal import CONTROLLER, Journal, Submission, key_of
from orchestration.cluster.situation import settle_intents
from orchestration.launching.launched import LaunchedPlan, LaunchRequest, kept_sweep, record_launch
from orchestration.launching.runner import Runner
from orchestration.policy.profile import Profile, Request, load_profile
from orchestration.runs.state import StageFolder, Store
from orchestration.search.launch import (
    Searching,
    exit_code,
    held,
    open_searcher,
    print_found,
)
from orchestration.search.run import Searcher
from orchestration.sweep.definition import Sweep, load_sweep

SUCCESSOR_SECONDS = 60
"""Before that, a successor starts only if the job before it is over."""
SHIP_SECONDS = 60.0
LOOK_SECONDS, QUEUE_SECONDS = 2.0, 60.0
"""How often somebody who follows a search looks at the study and at the queue."""


class JournaledBackend:
    """SLURM for one search: what was queued by a controller that was killed is found again."""

    def __init__(self, backend: SlurmBackend, journal: Journal, sweep: str, plan: str) -> None:
        self._backend = backend
        self._journal = journal
        self._sweep, self._plan = sweep, plan
        self._unsettled = True
        with journal.held():
            self._settle()

    def _settle(self) -> None:
        """Find out what became of submissions that nobody got an answer to."""
        if self._unsettled:
            for said in settle_intents(self._journal, self._backend):
                print(said)
            self._unsettled = False

    @property
    def capabilities(self) -> Capabilities:
        """Those of SLURM."""
        return self._backend.capabilities

    def warm_up(self) -> None:
        """Nothing to do."""

    def free_slots(self) -> int:
        """Any number."""
        return self._backend.free_slots()

    def check(self, request: Request) -> None:
        """Let the scheduler say whether it could ever run this."""
        self._backend.check(request)

    def submit(self, folder: StageFolder, request: Request) -> Job:
        """Queue a stage, unless a job of it is queued or running already.

        Raises:
            QueueFull: the user's limit of submitted jobs is reached.
            NoAnswer: whether it is queued is not known; the next call finds out.
            ValueError: the scheduler refuses.
        """
        with self._journal.held():
            self._settle()
            known = self._journal.jobs().get(key_of(folder.name))
            if known is not None and self._backend.poll(known) is None:
                return known
            kind = folder.spec().stage
            intent = self._journal.intend(kind, self._sweep, self._plan, [folder])
            try:
                (job,) = self._backend.submit_array([folder], request, name=intent.name)
            except NoAnswer:
                self._unsettled = True
                raise
            except (QueueFull, ValueError):
                self._journal.forget(intent)
                raise
            self._journal.acknowledge(intent, str(job.handle))
        return job

    def poll(self, job: Job) -> Ended | None:
        """None while the job may still run or start."""
        return self._backend.poll(job)

    def cancel(self, job: Job) -> None:
        """The worker saves a checkpoint."""
        self._backend.cancel(job)

    def logs(self, job: Job) -> list[Path]:
        """What the supervisor printed."""
        return self._backend.logs(job)

    def close(self) -> None:
        """Nothing: jobs go on."""


def control(
    name: str,
    runs_dir: Annotated[Path, typer.Option()],
    profile: Annotated[Path, typer.Option()],
    jobs: Annotated[int | None, typer.Option()] = None,
    first: Annotated[bool, typer.Option("--first")] = False,
) -> None:
    """Ask and tell until the search is over, or this job is."""
    store = Store(runs_dir)
    journal = Journal(store)
    mine = [entry for entry in journal.controllers() if entry.name == name]
    if not mine:
        print("another controller has taken over")
        return
    launched = launched_plan(store, mine[0].sweep, mine[0].plan)
    sweep = load_sweep(kept_sweep(launched, store), launched.scale, launched.request.overrides)
    loaded = load_profile(profile)
    slurm = SlurmBackend(jobs, loaded, store)
    with held(store, launched.key):
        successor = _successor(launched, journal, store, slurm, loaded, jobs)
        journal.forget(mine[0])
        try:
            _search(sweep, launched, store, slurm, loaded, first)
        finally:
            if successor is not None:
                cancel_jobs([str(successor.job)])
                journal.forget(successor)


def _successor(
    launched: LaunchedPlan,
    journal: Journal,
    store: Store,
    slurm: SlurmBackend,
    profile: Profile,
    jobs: int | None,
) -> Submission | None:
    """The controller that goes on where this one is killed; None: there is no room for it now."""
    try:
        found = queue_controller(launched, journal, store, slurm, profile, jobs, first=False)
        start_after(str(found.job), [os.environ["SLURM_JOB_ID"]])
    except (QueueFull, NoAnswer) as busy:
        print(f"no successor: {busy}; if this job is killed, launch again", flush=True)
        return None
    return found


def _search(
    sweep: Sweep,
    launched: LaunchedPlan,
    store: Store,
    slurm: SlurmBackend,
    profile: Profile,
    first: bool,
) -> None:
    """Run until nothing is left to ask for, and send all of it to MLflow."""
    uri = launched.request.store_uri(store)
    searching = Searching.open(sweep, store, launched.request, profile, uri)
    backend = JournaledBackend(slurm, Journal(store), sweep.name, launched.key)
    runner = Runner(searching.progress, store, backend, profile, searching.searcher, as_user=first)
    searching.tracking.prepare(SHIP_SECONDS)

    def observe(keys: Iterable[str]) -> None:
        searching.tracking.notify(keys)

    try:
        runner.run(observe)
    finally:
        print(searching.tracking.finish(SHIP_SECONDS) or "MLflow is up to date")


def queue_controller(
    launched: LaunchedPlan,
    journal: Journal,
    store: Store,
    backend: SlurmBackend,
    profile: Profile,
    jobs: int | None,
    *,
    first: bool,
) -> Submission:
    """Queue a controller of a search; the first starts at once, another when told.

    Raises:
        QueueFull: the user's limit of submitted jobs is reached.
        NoAnswer: whether it is queued is not known.
        ValueError: the scheduler refuses.
    """
    intent = journal.intend(CONTROLLER, launched.sweep, launched.key)
    command: list[Any] = [sys.executable, "-m", "orchestration.search.controller", intent.name]
    command += ["--runs-dir", store.root.absolute(), "--profile", backend.profile_file()]
    command += ["--jobs", jobs] if jobs is not None else []
    command += ["--first"] if first else []
    delay = 0 if first else SUCCESSOR_SECONDS
    try:
        job = submit_controller(backend, profile, [*map(str, command)], intent.name, delay)
    except NoAnswer:
        raise  # it may be queued: the journal keeps the intent
    except (QueueFull, ValueError):
        journal.forget(intent)
        raise
    return journal.acknowledge(intent, job)


def queued_controller(journal: Journal, plan: str) -> str | None:
    """The job that asks and tells for a plan, or will; None: there is none.

    Raises:
        ValueError: the queue cannot be read.
    """
    listed = ask_squeue()
    if listed is None:
        raise ValueError("squeue does not answer, so nothing was submitted; try again later")
    for controller in journal.controllers(plan):
        status = listed.get(str(controller.job))
        if status is not None and status.ended is None:
            return controller.job
    return None


# The launch of a user


def launch(
    sweep: Sweep,
    store: Store,
    request: LaunchRequest,
    backend: SlurmBackend,
    profile: Profile,
    uri: str,
    console: Console,
    *,
    stay: bool,
    as_json: bool,
) -> int:
    """Queue the job that asks and tells, unless there is one; returns the exit code.

    Raises:
        ValueError: the scheduler refuses, or the study cannot be opened.
    """
    searcher = open_searcher(sweep, store, request, profile)
    journal = Journal(store)
    with journal.held():
        job = None if searcher.is_over else queued_controller(journal, searcher.plan.key)
        if job is not None:
            console.print(f"job {job} asks and tells already")
        elif not searcher.is_over:
            record_launch(searcher.plan, store, request)
            launched = launched_plan(store, sweep.name, searcher.plan.key)
            jobs = backend.parallelism
            queued = queue_controller(launched, journal, store, backend, profile, jobs, first=True)
            console.print(f"job {queued.job} asks and tells; nobody needs to stay")
    if stay:
        searcher = follow(sweep, store, request, profile, searcher, console)
    if stay or searcher.is_over:
        print_found(searcher, uri, console, as_json=as_json)
        return exit_code(searcher)
    print_ways_on(sweep.name, store, console)
    return 0


def follow(
    sweep: Sweep,
    store: Store,
    request: LaunchRequest,
    profile: Profile,
    searcher: Searcher,
    console: Console,
) -> Searcher:
    """Say which trials end, until the search is over or nothing of it is queued any more."""
    said: set[str] = set(searcher.told())
    asked = time.monotonic()
    while not searcher.is_over:
        time.sleep(LOOK_SECONDS)
        searcher = open_searcher(sweep, store, request, profile)
        for line in searcher.told():
            if line not in said:
                console.print(line)
                said.add(line)
        if time.monotonic() - asked > QUEUE_SECONDS:
            asked = time.monotonic()
            if queued_controller(Journal(store), searcher.plan.key) is None:
                break
    return searcher


if __name__ == "__main__":
    typer.run(control)
