"""Job that drives a search on a cluster: it asks Optuna and tells it when nobody is logged in.

It holds nothing that is not on disk. Before it does anything it queues its successor, to start
when this job is over, however that comes: killed, out of time, or lost with its node. The
successor finds the trials in the study, their stages in the journal and in their folders.
"""

from __future__ import annotations

import time

from rich.console import Console

from orchestration.backends.base import Dependency, DetachedBackend, Job, NoAnswer, QueueFull
from orchestration.backends.detached.journal import Journal, Submission
from orchestration.backends.detached.launching import print_ways_on
from orchestration.backends.detached.situation import settle_intents
from orchestration.backends.detached.submission import queue_controller
from orchestration.launching.drawn import keep
from orchestration.launching.launch import Launch
from orchestration.launching.launched import record_launch
from orchestration.launching.runner import Runner
from orchestration.policy.profile import Request
from orchestration.runs.state import StageFolder
from orchestration.search.launch import Searching, held, launched_searcher
from orchestration.search.run import Searcher
from orchestration.terminal import Terminal

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
        # All but the submission is the scheduler's own.
        self.capabilities = backend.capabilities
        self.free_slots, self.check = backend.free_slots, backend.check
        self.poll, self.wait = backend.poll, backend.wait
        self.cancel, self.logs = backend.cancel, backend.logs
        with journal.held():
            self._settle()

    def _settle(self) -> None:
        """Find out what became of submissions that nobody got an answer to."""
        if self._unsettled:
            for said in settle_intents(self._journal, self._backend):
                print(said)
            self._unsettled = False

    def warm_up(self) -> None:
        """Do nothing: there is nothing to start."""

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
            known = self._journal.jobs().get(folder.key)
            if known is not None and self.poll(known) is None:
                return known
            kind = folder.spec().stage
            intent = self._journal.intend(kind, self._sweep, self._plan, [folder])
            try:
                with self._journal.refusable(intent, self._backend):
                    (job,) = self._backend.submit_array(
                        [folder], request, name=intent.name, after=Dependency()
                    )
            except NoAnswer:
                self._unsettled = True
                raise
            self._journal.acknowledge(intent, str(job.handle))
        return job

    def close(self) -> None:
        """Do nothing: jobs go on."""


def control(launch: Launch, mine: Submission, *, first: bool) -> None:
    """Ask and tell until the search is over, or this job is.

    Args:
        launch: of the search, on the scheduler that runs this job.
        mine: the journal's entry of this job.
        first: the user has just launched the search.
    """
    scheduler = launch.scheduler
    journal = Journal(launch.store, scheduler.name)
    # Before the successor is queued: while another controller drives the search, this one must
    # leave nothing behind.
    with held(launch.store, launch.plan.key):
        # Before any trial is asked for: from here on a kill at any moment has somebody who goes
        # on.
        successor = _successor(launch, journal)
        # From here on the successor is the one that a launch finds.
        journal.forget(mine)
        try:
            _search(launch, journal, first)
        finally:
            if successor is not None:
                scheduler.cancel_jobs([str(successor.job)])
                journal.forget(successor)


def _successor(launch: Launch, journal: Journal) -> Submission | None:
    """Queue the controller that goes on where this one is killed; None: there is no room."""
    backend = launch.scheduler
    try:
        # After any end of this job, good or bad: at a regular end the successor is cancelled.
        found = queue_controller(launch, journal, SUCCESSOR_SECONDS)
        backend.start_after(str(found.job), [str(backend.own_job())])
    except (QueueFull, NoAnswer) as busy:
        print(f"no successor: {busy}; if this job is killed, launch again", flush=True)
        return None
    return found


def _search(launch: Launch, journal: Journal, first: bool) -> None:
    """Run until nothing is left to ask for, and send all of it to MLflow."""
    searching = Searching.open(launch)
    plan, store = launch.plan, launch.store
    backend = JournaledBackend(launch.scheduler, journal, plan.sweep.name, plan.key)
    # Only the first controller acts for the user: a successor must not forget failures that its
    # predecessor counted.
    guide, progress = searching.searcher, searching.progress
    runner = Runner(progress, store, backend, launch.profile, guide, as_user=first)
    searching.tracking.prepare(SHIP_SECONDS)
    try:
        runner.run(searching.tracking.notify)
    finally:
        print(searching.tracking.finish(SHIP_SECONDS) or "MLflow is up to date")
    if (problem := keep(plan, store, launch.uri)) is not None:
        print(f"MLflow lacks report and figure: {problem}")


def queued_controller(launch: Launch, journal: Journal) -> str | None:
    """Find the job that drives the search of a plan, or will; None: there is none.

    Raises:
        NoAnswer: the queue cannot be read.
    """
    listed = launch.scheduler.listed()
    if listed is None:
        raise NoAnswer("the scheduler does not answer; nothing was submitted, try again later")
    for controller in journal.controllers(launch.plan.key):
        # Only what the scheduler lists: an entry of the journal may be about a job that ended long
        # ago.
        status = listed.get(str(controller.job))
        if status is not None and status.ended is None:
            return controller.job
    return None


# The launch of a user


def queue(launch: Launch, terminal: Terminal) -> Searcher | None:
    """Queue the job that drives the search, unless there is one.

    Args:
        launch: of the search, on the scheduler.
        terminal: of the user, who follows the search until it is over, or leaves.

    Returns:
        The search that is over, or is not followed any more; None: it goes on by itself.

    Raises:
        ValueError: the scheduler refuses, or the study cannot be opened.
    """
    console = terminal.console
    searcher = launched_searcher(launch)
    journal = Journal(launch.store, launch.scheduler.name)
    with journal.held():
        # Looked up and queued under one lock: two launches at the same time would queue two
        # controllers.
        job = None if searcher.is_over else queued_controller(launch, journal)
        if job is not None:
            console.print(f"job {job} drives the search already")
        elif not searcher.is_over:
            record_launch(searcher.plan, launch.store, launch.request)
            queued = queue_controller(launch, journal, 0, options=["--first"])
            console.print(f"job {queued.job} drives the search; you can log out")
    if terminal.watch:
        return follow(launch, journal, searcher, console)
    if searcher.is_over:
        return searcher
    print_ways_on(launch, console)
    return None


def follow(launch: Launch, journal: Journal, searcher: Searcher, console: Console) -> Searcher:
    """Say which trials end, until the search is over or nothing of it is queued any more."""
    said: set[str] = set(searcher.told())
    asked = time.monotonic()
    while not searcher.is_over:
        time.sleep(LOOK_SECONDS)
        # Opened anew in every look: the study is written by another process.
        searcher = launched_searcher(launch)
        for line in searcher.told():
            if line not in said:
                console.print(line)
                said.add(line)
        if time.monotonic() - asked > QUEUE_SECONDS:
            asked = time.monotonic()
            if queued_controller(launch, journal) is None:
                break
    return searcher
