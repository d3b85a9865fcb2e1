"""Submission of a plan to a scheduler whose jobs outlive the launcher, as job arrays.

Per kind of stage, in the graph's order: form arrays (`arrays`), write each into the journal,
submit it, write down its id. What the user's limits have no room for is left to the controller
(`controller`), a small job that runs after all others and does the same again. Nobody needs to
stay logged in, and whoever is killed on the way loses and doubles nothing.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gigatok.stages import STAGES
from orchestration.backends.base import DependencyOver, NoAnswer, QueueFull
from orchestration.backends.detached.arrays import Array, Lane, Lanes, QueuePlace, form_arrays
from orchestration.backends.detached.journal import CONTROLLER, Journal, Submission, key_of
from orchestration.backends.detached.situation import (
    Situation,
    end_given_up,
    judge,
    look,
    open_stages,
    settle_intents,
)
from orchestration.costs.cost import seconds_for_order
from orchestration.execution.gates import Gatekeeper
from orchestration.execution.progress import Progress, stage_spec
from orchestration.execution.scheduler import ORDERS, Scheduler
from orchestration.launching.launch import Launch
from orchestration.plan.graph import PlannedStage
from orchestration.policy.profile import keep_profile
from orchestration.runs.holder import reopen_damaged
from orchestration.runs.state import StageFolder

CONTROLLER_SECONDS = 600
"""Before that, the controller starts only if everything it waits for is over. A launcher that is
killed on the way leaves the rest to it; so does a queue that is full of other jobs."""

Say = Callable[[str], None]


@dataclass
class Submitted:
    """Result of a submission.

    Attributes:
        arrays: what was submitted.
        live: keys of stages whose jobs were in the queue already, and were left alone.
        foreign: keys of stages that somebody else runs.
        controller: id of the job that looks after the plan; None: there is none.
        left: keys of stages that wait for room in the queue or for somebody else's stages.
    """

    arrays: list[Submission] = field(default_factory=list)
    live: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    controller: str | None = None

    @property
    def goes_on(self) -> bool:
        """Tell whether anything is in the queue."""
        return bool(self.arrays or self.live)

    @property
    def submitted(self) -> int:
        """Count the stages that were submitted."""
        return sum(len(array.folders) for array in self.arrays)


class Submitter:
    """Submits what is left of one plan; the journal is held meanwhile."""

    def __init__(self, launch: Launch, progress: Progress, situation: Situation) -> None:
        self.progress = progress
        self._store = launch.store
        self._backend = launch.scheduler
        self._profile = profile = launch.profile
        self._situation = situation
        self._journal = Journal(launch.store, launch.scheduler.name)
        trials = [trial.stages.values() for trial in progress.plan.trials]
        seconds = seconds_for_order(progress.costs)
        self._ranks = ORDERS[profile.ready_order](progress.graph, trials, seconds)
        self._behind_gates = self._look_at_gates()
        # What waits for a job that is over, or unknown, would never start or start at once.
        self._places = {key: QueuePlace.of(situation.live[key].handle) for key in situation.queued}
        self._full = False
        self.outcome = Submitted(live=set(situation.live), foreign=set(situation.foreign))

    def todo(self) -> list[PlannedStage]:
        """List the stages that are neither complete nor given up nor in anybody's hands.

        By kind in the graph's order; within a kind, what comes first where there is no room for
        all, in the order in which `orchestration.launching.runner` would start them.
        """
        taken = {*self._situation.live, *self._situation.foreign, *self.progress.held_stages}
        plan = self.progress.plan
        kinds = {kind: index for index, kind in enumerate(STAGES)}
        keys = [key for key in open_stages(self.progress) if key not in taken]
        keys.sort(key=lambda key: (kinds[plan.stages[key].stage], self._ranks[key]))
        return [plan.stages[key] for key in keys]

    def _look_at_gates(self) -> set[str]:
        """Hold what is above gates that stay shut; returns what others keep waiting.

        The controller comes when what is queued is over, looks again, and queues the next sizes.
        """
        progress = self.progress
        predicted = {key: cost.seconds for key, cost in progress.costs.items()}
        gates, first = self._profile.gates, self._profile.predict_first
        keeper = Gatekeeper(progress, self._store, gates, predicted, first)
        complete = [key for key, state in progress.states.items() if state == "COMPLETE"]
        scheduler = Scheduler(
            progress.graph, self._ranks, complete=complete, gates=keeper.guards()
        )
        keeper.look(scheduler)
        return scheduler.at_gates() - set(complete)

    def jobs(self) -> list[str]:
        """List the jobs and arrays of the plan that are in the queue."""
        return sorted({place.job for place in self._places.values()})

    def run(self, todo: list[PlannedStage], say: Say) -> None:
        """Submit.

        Args:
            todo: stages of the plan, in its order.
            say: told about each array.

        Raises:
            ValueError: the scheduler refuses a request. What was submitted before stays.
        """
        self.outcome.left += [stage.key for stage in todo if stage.key in self._behind_gates]
        todo = [stage for stage in todo if stage.key not in self._behind_gates]
        self._create_folders(todo)
        largest = self._backend.largest_array()
        lanes = self._lanes(todo)
        by_kind: dict[str, list[PlannedStage]] = defaultdict(list)
        for stage in todo:
            by_kind[stage.stage].append(stage)
        for kind, stages in by_kind.items():
            self._submit_kind(kind, stages, largest, lanes, say)

    def _create_folders(self, todo: list[PlannedStage]) -> None:
        made = self._store.create_all(stage_spec(stage, self.progress) for stage in todo)
        self.progress.folders.update(made)

    def _lanes(self, todo: list[PlannedStage]) -> Lanes:
        """Share what the cap leaves beside the jobs that are live already."""
        counts = Counter(stage.stage for stage in todo)
        work: dict[str, float] = defaultdict(float)
        for stage in todo:
            work[stage.stage] += self.progress.costs[stage.key].ordering_seconds
        cap = self._backend.parallelism
        live = self._live_widths()
        # Jobs of an earlier launch count towards the cap, although their widths were shared out
        # without these.
        left = None if cap is None else cap - sum(live.values())
        if left is None or left >= 1:
            return Lanes(left, counts, work)
        # They use all of it: queue behind them, with the whole cap once they are over.
        return Lanes(cap, counts, work, behind=sorted(live))

    def _live_widths(self) -> dict[str, int]:
        """Count for each job how many of its stages may run at the same time."""
        elements = Counter(place.job for place in self._places.values())
        # The elements that are left may be fewer than the array's width, and then only so many can
        # run.
        widths = {s.job: s.width for s in self._journal.submissions() if s.job in elements}
        return {job: min(widths.get(job) or count, count) for job, count in elements.items()}

    def _submit_kind(
        self,
        kind: str,
        stages: list[PlannedStage],
        largest: int,
        lanes: Lanes,
        say: Say,
    ) -> None:
        parents = {stage.key: self._parents(stage) for stage in stages}
        ready = {key: places for key, places in parents.items() if places is not None}
        arrays = form_arrays(ready, largest)
        # Lanes of a kind are opened before its first array and closed after its last: all its
        # arrays share one column, and the next kind waits for all of them.
        opened = lanes.open(kind, len(arrays))
        queued: set[str] = set()
        for number, array in enumerate(arrays):
            done = self._submit_fitting(kind, array, ready, opened[number % len(opened)])
            if done is not None:
                queued.update(map(key_of, done.folders))
                say(f"{kind}: {len(done.folders)} stages as job {done.job}")
        lanes.close(kind, opened)
        self.outcome.left += [key for key in parents if key not in queued]

    def _parents(self, stage: PlannedStage) -> frozenset[QueuePlace] | None:
        """Find the stages that it waits for in the queue; None where one is not there."""
        states = self.progress.states
        waits = [key for key in stage.inputs.values() if states[key] != "COMPLETE"]
        # A stage that another launch runs, or for which there was no room, has no job to depend
        # on.
        if any(key not in self._places for key in waits):
            return None
        return frozenset(self._places[key] for key in waits)

    def _submit_fitting(
        self, kind: str, array: Array, parents: dict[str, frozenset[QueuePlace]], lane: Lane
    ) -> Submission | None:
        """Submit an array, or as much of its beginning as there is room for."""
        size = 0 if self._full else len(array.keys)
        while size:
            keys = array.keys[:size]
            # One that is left alone is a job without an index, to which nothing can be aligned.
            part = Array(keys, array.after)
            if size == 1:
                (part,) = form_arrays({keys[0]: parents[keys[0]]}, 1)
            try:
                return self._submit(kind, part, lane)
            except QueueFull:
                self._full = True
                # The scheduler says that there is no room, not how much: a few tries find it.
                size = size * 2 // 3
        return None

    def _submit(self, kind: str, array: Array, lane: Lane) -> Submission | None:
        """Submit an array under the journal's protocol.

        Raises:
            QueueFull: no room for all of it.
            NoAnswer: it may be queued; the journal keeps the intent, to be settled later.
            ValueError: the scheduler refuses.
        """
        folders = [self.progress.folders[key] for key in array.keys]
        width = None if lane.width is None else min(lane.width, len(folders))
        plan, request = self.progress.plan, self._profile.request(kind)
        intent = self._journal.intend(kind, plan.sweep.name, plan.key, folders, width)
        try:
            with self._journal.refusable(intent, self._backend):
                jobs = self._backend.submit_array(
                    folders,
                    request,
                    name=intent.name,
                    after=lane.after(array),
                    parallelism=width,
                )
        except DependencyOver:
            return None  # for the controller to see
        places = {
            key: QueuePlace.of(job.handle) for key, job in zip(array.keys, jobs, strict=True)
        }
        self._places |= places
        done = self._journal.acknowledge(intent, places[array.keys[0]].job)
        lane.last = [str(done.job)]
        self.outcome.arrays.append(done)
        return done


def submit_remaining(
    launch: Launch, progress: Progress, say: Say, *, launched: float | None = None
) -> Submitted:
    """Queue whatever of a plan is neither complete, nor queued, nor run by somebody else.

    Args:
        launch: of the plan, on the cluster.
        progress: of the plan; stages that are given up in it are left alone.
        say: told what happens, line by line.
        launched: for the controller, when the user launched the plan, UNIX seconds: the policies
            decide what is tried again. None: the user decides, and wants all of it tried.

    Raises:
        NoAnswer: the scheduler does not answer; the controller, if there is one, tries again.
        ValueError: the scheduler refuses a request.

    What was submitted before that stays, and is looked after.
    """
    backend = launch.scheduler
    # Everything below happens under the journal's lock: two launches, or a launch and a
    # controller, that look at the same moment would both find a stage unqueued.
    journal = Journal(launch.store, backend.name)
    with journal.held():
        for found in settle_intents(journal, backend):
            say(found)
        # Not in the controller: a failure that the policies decided on stands until a user wants
        # it again.
        if launched is None:
            end_given_up(progress, journal, backend)
        # Before `look`, which takes a folder with DONE for complete.
        for key in progress.damaged:
            reopen_damaged(progress.folders[key])
        situation = look(progress, journal, backend)
        if launched is not None:
            judge(progress, situation, launch.profile, launched)
        submitter = Submitter(launch, progress, situation)
        todo = submitter.todo() if progress.held is None else []
        if launched is None:
            for stage in todo:
                progress.folders[stage.key].clear_failure()
                progress.folders[stage.key].clear_tries()
        if todo or situation.live:
            _submit_looked_after(launch, submitter, todo, journal, say)
        journal.prune()
    return submitter.outcome


def _submit_looked_after(
    launch: Launch, submitter: Submitter, todo: list[PlannedStage], journal: Journal, say: Say
) -> None:
    """Submit stages, and a controller before them.

    First, so that there is room for it, and somebody there if this process is killed.
    """
    progress, controller = submitter.progress, None
    plan = progress.plan
    # Launches that left different stages alone: the controller looks after all that they wanted.
    earlier = {key_of(folder) for old in journal.controllers(plan.key) for folder in old.folders}
    keys = [key for key in plan.stages if key in earlier or key not in progress.left]
    folders = [progress.folders[key] for key in keys]
    try:
        controller = queue_controller(launch, journal, CONTROLLER_SECONDS, folders)
    except QueueFull as refused:
        say(f"no room in the queue to go on by itself: launch again later ({refused})")
    try:
        submitter.run(todo, say)
    except NoAnswer:
        submitter.outcome.left = [stage.key for stage in todo]
        raise
    finally:
        if controller is not None:
            submitter.outcome.controller = arm(controller, submitter, journal, launch, say)


def queue_controller(
    launch: Launch,
    journal: Journal,
    delay: int,
    folders: Iterable[StageFolder] = (),
    options: Sequence[str] = (),
) -> Submission:
    """Queue the job that looks after a plan, in the place of earlier ones.

    Args:
        launch: of the plan, on the cluster.
        journal: of the cluster.
        delay: seconds before it may start.
        folders: of the stages that it looks after; a search's are not known in advance.
        options: of the job, beside those by which it finds the runs and the same scheduler.

    Raises:
        QueueFull: the user's limit of submitted jobs is reached.
        NoAnswer: whether it is queued is not known.
        ValueError: the scheduler refuses.
    """
    plan, backend, store = launch.plan, launch.scheduler, launch.store
    kept = keep_profile(launch.profile, store.job_files(backend.name).resolve())
    where = ["--runs-dir", str(store.root.absolute()), "--profile", str(kept)]
    where += ["--backend", backend.name]
    where += [] if backend.parallelism is None else ["--jobs", str(backend.parallelism)]
    program = [sys.executable, "-m", "orchestration.commands.control"]
    intent = journal.intend(CONTROLLER, plan.sweep.name, plan.key, folders)
    with journal.refusable(intent, backend):
        command = [*program, intent.name, *where, *options]
        job = backend.submit_controller(command, intent.name, delay)
    return journal.acknowledge(intent, job)


def arm(
    controller: Submission, submitter: Submitter, journal: Journal, launch: Launch, say: Say
) -> str | None:
    """Let the controller follow everything that is queued, in the place of earlier ones.

    Where nothing is known to be queued, but not everything is over, it starts by the clock: one
    that started at once would find the same and be followed by the next at once, and so on.

    Returns:
        Its job; None where none is needed.
    """
    backend = launch.scheduler
    assert controller.job is not None
    jobs = submitter.jobs()
    if jobs:
        try:
            backend.start_after(controller.job, jobs)
        except ValueError as error:
            say(f"controller {controller.job} starts by the clock: {error}")
    elif not (submitter.outcome.left or submitter.outcome.live):
        backend.cancel_jobs([controller.job])
        journal.forget(controller)
        return None
    # Only now that the new one is in place: a kill before this leaves two controllers, which take
    # turns under the journal's lock, and never none.
    for earlier in journal.controllers(controller.plan):
        if earlier.name != controller.name:
            # Where this is a controller itself, it goes on to its end.
            if earlier.job not in (None, backend.own_job()):
                backend.cancel_jobs([str(earlier.job)])
            journal.forget(earlier)
    return controller.job
