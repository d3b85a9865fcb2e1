"""Job that drives a search on a cluster: it asks Optuna and tells it when nobody is logged in.

It holds nothing that is not on disk. Before it does anything it queues its successor, to start
when this job is over, however that comes: killed, out of time, or lost with its node. The
successor finds the trials in the study, their stages in the journal and in their folders.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestration.backends import connect_detached, profile_options
from orchestration.backends.base import (
    Capabilities,
    Dependency,
    DetachedBackend,
    Job,
    NoAnswer,
    QueueFull,
)
from orchestration.backends.detached.journal import CONTROLLER, Journal, Submission, key_of
from orchestration.backends.detached.launching import print_ways_on
from orchestration.backends.detached.situation import settle_intents
from orchestration.backends.detached.submission import job_options
from orchestration.launching.history import find_plan
from orchestration.launching.launched import (
    LaunchedPlan,
    LaunchRequest,
    record_launch,
    restored,
)
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan
from orchestration.policy.ended import Ended
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

SUCCESSOR_SECONDS = 60
"""Before that, a successor starts only if the job before it is over."""
# Shorter than for a sweep's controller: this one also sends while the search runs.
SHIP_SECONDS = 60.0
LOOK_SECONDS, QUEUE_SECONDS = 2.0, 60.0
"""How often somebody who follows a search looks at the study and at the queue."""


class JournaledBackend:
    """Scheduler for one search: what a controller that was killed had queued is found again."""

    def __init__(self, backend: DetachedBackend, journal: Journal, sweep: str, plan: str) -> None:
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
        """Say what the scheduler offers."""
        return self._backend.capabilities

    def warm_up(self) -> None:
        """Do nothing: there is nothing to start."""

    def free_slots(self) -> int:
        """Return any number: the scheduler keeps the queue."""
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
        # Under the journal's lock, like a launch: both could queue the same stage.
        with self._journal.held():
            self._settle()
            # A predecessor that was killed may have queued this stage: its job is adopted, whoever
            # queued it.
            known = self._journal.jobs().get(key_of(folder.name))
            if known is not None and self._backend.poll(known) is None:
                return known
            kind = folder.spec().stage
            intent = self._journal.intend(kind, self._sweep, self._plan, [folder])
            try:
                (job,) = self._backend.submit_array(
                    [folder], request, name=intent.name, after=Dependency()
                )
            except NoAnswer:
                self._unsettled = True
                raise
            except (QueueFull, ValueError):
                self._journal.forget(intent)
                raise
            self._journal.acknowledge(intent, str(job.handle))
        return job

    def poll(self, job: Job) -> Ended | None:
        """Return the end of a job; None while it may still run or start."""
        return self._backend.poll(job)

    def cancel(self, job: Job) -> None:
        """Stop a job; its worker saves a checkpoint."""
        self._backend.cancel(job)

    def logs(self, job: Job) -> list[Path]:
        """List what the scheduler wrote about a job."""
        return self._backend.logs(job)

    def close(self) -> None:
        """Do nothing: jobs go on."""


def control(
    name: str,
    runs_dir: Annotated[Path, typer.Option()],
    profile: Annotated[Path, typer.Option()],
    backend: Annotated[str, typer.Option()],
    jobs: Annotated[int | None, typer.Option()] = None,
    first: Annotated[bool, typer.Option("--first")] = False,
) -> None:
    """Ask and tell until the search is over, or this job is."""
    store = Store(runs_dir)
    journal = Journal(store, backend)
    mine = [entry for entry in journal.controllers() if entry.name == name]
    if not mine:
        print("another controller has taken over")
        return
    launched = find_plan(store, mine[0].sweep, mine[0].plan)
    plan = restored(launched, store)
    loaded = load_profile(profile, profile_options())
    scheduler = connect_detached(backend, store, loaded, jobs)
    # Before the successor is queued: while another controller drives the search, this one must
    # leave nothing behind.
    with held(store, launched.key):
        # Before any trial is asked for: from here on a kill at any moment has somebody who goes
        # on.
        successor = _successor(launched, journal, store, scheduler, loaded)
        # From here on the successor is the one that a launch finds.
        journal.forget(mine[0])
        try:
            _search(plan, launched, store, scheduler, loaded, first)
        finally:
            if successor is not None:
                scheduler.cancel_jobs([str(successor.job)])
                journal.forget(successor)


def _successor(
    launched: LaunchedPlan,
    journal: Journal,
    store: Store,
    backend: DetachedBackend,
    profile: Profile,
) -> Submission | None:
    """Queue the controller that goes on where this one is killed; None: there is no room."""
    try:
        # After any end of this job, good or bad: at a regular end the successor is cancelled.
        found = queue_controller(launched, journal, store, backend, profile, first=False)
        backend.start_after(str(found.job), [str(backend.own_job())])
    except (QueueFull, NoAnswer) as busy:
        print(f"no successor: {busy}; if this job is killed, launch again", flush=True)
        return None
    return found


def _search(
    plan: Plan,
    launched: LaunchedPlan,
    store: Store,
    scheduler: DetachedBackend,
    profile: Profile,
    first: bool,
) -> None:
    """Run until nothing is left to ask for, and send all of it to MLflow."""
    uri = launched.request.store_uri(store)
    searching = Searching.open(plan, store, launched.request, profile, uri)
    journal = Journal(store, scheduler.name)
    backend = JournaledBackend(scheduler, journal, launched.sweep, launched.key)
    # Only the first controller acts for the user: a successor must not forget failures that its
    # predecessor counted.
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
    backend: DetachedBackend,
    profile: Profile,
    *,
    first: bool,
) -> Submission:
    """Queue a controller of a search; the first starts at once, another when told.

    Raises:
        QueueFull: the user's limit of submitted jobs is reached.
        NoAnswer: whether it is queued is not known.
        ValueError: the scheduler refuses.
    """
    # Without folders: a search's stages are not known in advance, and its controller looks after
    # all of them.
    intent = journal.intend(CONTROLLER, launched.sweep, launched.key)
    command = [sys.executable, "-m", "orchestration.search.controller", intent.name]
    command += job_options(store, backend, profile)
    command += ["--first"] if first else []
    delay = 0 if first else SUCCESSOR_SECONDS
    try:
        job = backend.submit_controller(command, intent.name, delay)
    except NoAnswer:
        raise  # it may be queued: the journal keeps the intent
    except (QueueFull, ValueError):
        journal.forget(intent)
        raise
    return journal.acknowledge(intent, job)


def queued_controller(backend: DetachedBackend, journal: Journal, plan: str) -> str | None:
    """Find the job that drives the search of a plan, or will; None: there is none.

    Raises:
        NoAnswer: the queue cannot be read.
    """
    listed = backend.listed()
    if listed is None:
        raise NoAnswer("the scheduler does not answer; nothing was submitted, try again later")
    for controller in journal.controllers(plan):
        # Only what the scheduler lists: an entry of the journal may be about a job that ended long
        # ago.
        status = listed.get(str(controller.job))
        if status is not None and status.ended is None:
            return controller.job
    return None


# The launch of a user


def launch(
    plan: Plan,
    store: Store,
    request: LaunchRequest,
    backend: DetachedBackend,
    profile: Profile,
    uri: str,
    console: Console,
    *,
    stay: bool,
    as_json: bool,
) -> int:
    """Queue the job that drives the search, unless there is one; returns the exit code.

    Args:
        plan: of the sweep, with the example of its trials.
        store: the runs directory.
        request: as it is recorded.
        backend: the scheduler.
        profile: what stages and controllers ask for.
        uri: where MLflow keeps the runs.
        console: for what is said.
        stay: follow the search until it is over.
        as_json: print what was found as JSON.

    Raises:
        ValueError: the scheduler refuses, or the study cannot be opened.
    """
    searcher = open_searcher(plan, store, request, profile)
    journal = Journal(store, backend.name)
    with journal.held():
        # Looked up and queued under one lock: two launches at the same time would queue two
        # controllers.
        job = None if searcher.is_over else queued_controller(backend, journal, searcher.plan.key)
        if job is not None:
            console.print(f"job {job} drives the search already")
        elif not searcher.is_over:
            record_launch(searcher.plan, store, request)
            launched = find_plan(store, plan.sweep.name, plan.key)
            queued = queue_controller(launched, journal, store, backend, profile, first=True)
            console.print(f"job {queued.job} drives the search; you can log out")
    if stay:

        def is_queued() -> bool:
            return queued_controller(backend, journal, searcher.plan.key) is not None

        searcher = follow(plan, store, request, profile, searcher, is_queued, console)
    if stay or searcher.is_over:
        print_found(searcher, uri, console, as_json=as_json)
        return exit_code(searcher)
    print_ways_on(plan.sweep.name, store, console)
    return 0


def follow(
    plan: Plan,
    store: Store,
    request: LaunchRequest,
    profile: Profile,
    searcher: Searcher,
    is_queued: Callable[[], bool],
    console: Console,
) -> Searcher:
    """Say which trials end, until the search is over or nothing of it is queued any more."""
    said: set[str] = set(searcher.told())
    asked = time.monotonic()
    while not searcher.is_over:
        time.sleep(LOOK_SECONDS)
        # Opened anew in every look: the study is written by another process.
        searcher = open_searcher(plan, store, request, profile)
        for line in searcher.told():
            if line not in said:
                console.print(line)
                said.add(line)
        if time.monotonic() - asked > QUEUE_SECONDS:
            asked = time.monotonic()
            if not is_queued():
                break
    return searcher


if __name__ == "__main__":
    typer.run(control)
