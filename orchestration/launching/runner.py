"""Runs a plan: skips what is complete, submits what is ready, passes failure downstream.

What is next is decided by `orchestration.execution.scheduler`. The stage folders are the truth:
a stage that another launcher runs is waited for, not run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from orchestration.backends.base import Backend, Job, NoAnswer, QueueFull
from orchestration.costs.cost import seconds_for_order
from orchestration.execution.gates import Gatekeeper
from orchestration.execution.progress import Progress, stage_spec
from orchestration.execution.scheduler import ORDERS, Scheduler
from orchestration.plan.graph import Plan, PlannedStage
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile
from orchestration.runs.holder import break_dead_lease, reopen_damaged
from orchestration.runs.stage_records import Failure, Kind
from orchestration.runs.state import StageFolder, State, Store

TICK_SECONDS = 0.1
"""How long nothing is looked at while no job ends."""
FOREIGN_SECONDS = 0.5
"""How often the folder of a stage that somebody else runs is looked at."""
ASK_SECONDS = 2.0
"""How often a stage that was given up is asked to stop, while it still runs."""
BUSY_SECONDS = 30.0
"""After so long a backend that took no stage is asked again."""
FINAL_SECONDS = 10.0
"""Whoever runs a stage may try it again: its failure counts for others once it is so old."""
GRACE_SECONDS = 10.0
"""How long workers may take to save a checkpoint when the launcher itself breaks."""

Observe = Callable[[Iterable[str]], None]


class Guide(Protocol):
    """Decides while a plan runs what else is run, and what is not worth going on with."""

    def steer(self, runner: Runner) -> bool:
        """Grow the plan and give stages up, in every tick; returns whether more may come."""


class Runner:
    """Drives one plan on one backend until nothing is left or the user interrupts."""

    stopping = "stopping: running stages save a checkpoint … (again: kill them)"
    goes_on = False

    def __init__(
        self,
        progress: Progress,
        store: Store,
        backend: Backend,
        profile: Profile,
        guide: Guide | None = None,
        *,
        as_user: bool = True,
    ) -> None:
        """Prepare a run.

        Args:
            progress: the survey of the plan; kept up to date.
            store: the runs directory.
            backend: where stages run.
            profile: what they ask for, and how often what is tried again.
            guide: of a plan that is not known in advance; None: it is.
            as_user: a user wants it run now, whatever became of earlier attempts.
        """
        self.progress = progress
        self._guide = guide
        self._as_user = as_user
        # A search may have nothing to run at this moment and still ask for the next trial.
        self._more = guide is not None
        self.backend = backend
        self._profile = profile
        self._plan = progress.plan
        self._store = store
        self._jobs: dict[str, Job] = {}
        self._looked: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._cancelled_before: set[str] = set()
        """Run elsewhere, and cancelled before this launch, which wants them all the same."""
        self._busy_until = -math.inf
        self._changed: set[str] = set()
        self._interrupts = 0
        self._scheduler = self._schedule()

    def grow(self, plan: Plan) -> None:
        """Go on with a plan that has all stages of this one and more."""
        new = self.progress.grow(plan, self._store)
        self._plan = plan
        # New stages may have folders of an earlier launch, with its failures in them.
        for key in new:
            self._decide_stage_anew(key)
        self._scheduler = self._schedule()
        self._changed.update(new)

    def give_up(self, keys: Iterable[str]) -> None:
        """Leave stages alone from now on; those that run save a checkpoint and stop."""
        self.progress.left |= set(keys)
        self._scheduler = self._schedule()

    def take_up(self, keys: Iterable[str]) -> None:
        """Run stages after all that were given up."""
        self.progress.left -= set(keys)
        self._scheduler = self._schedule()

    def _schedule(self) -> Scheduler:
        """Order what is left of the plan as it is now."""
        progress, states = self.progress, self.progress.states
        costs = progress.costs
        predicted = {key: cost.seconds for key, cost in costs.items()}
        # A search compares trials of any size, in an order that it chooses itself: gates would
        # stand in its way.
        gates = self._profile.gates if self._guide is None else None
        first = self._profile.predict_first
        self._gatekeeper = Gatekeeper(progress, self._store, gates, predicted, first)
        trials = [trial.stages.values() for trial in self._plan.trials]
        return Scheduler(
            progress.graph,
            ORDERS[self._profile.ready_order](progress.graph, trials, seconds_for_order(costs)),
            complete=[key for key, state in states.items() if state == "COMPLETE"],
            skipped=[
                key
                for key, state in states.items()
                if key in progress.left or state in ("FAILED", "UPSTREAM_FAILED")
            ],
            gates=self._gatekeeper.guards(),
        )

    def interrupt(self) -> None:
        """Stop: running stages save a checkpoint first. A second call kills them."""
        # Called from a signal handler: everything else happens in `run`, between two ticks.
        self._interrupts += 1

    def stop(self) -> None:
        """Stop; however often it is called, running stages save a checkpoint."""
        # Never two: that would kill workers that are saving a checkpoint.
        self._interrupts = max(1, self._interrupts)

    def run(self, observe: Observe) -> Progress:
        """Run until done, failed everywhere, or interrupted.

        Args:
            observe: called every tick with the keys of stages that changed or are running.
        """
        self._decide_anew()
        self._gatekeeper.look(self._scheduler)
        self.progress.slots = self.backend.free_slots()
        try:
            while (self._more or not self.progress.finished) and not self._stopped():
                self._collect()
                # Before anything is submitted: what is complete may call for a prediction, which
                # has to be written down before the model that it is about starts.
                observe(self._changed | set(self._jobs))
                self._changed.clear()
                if self._interrupts:
                    self._stop()
                # Held sweeps start nothing new, but what runs goes on to its end.
                elif self.progress.held is None:
                    self._follow_guide()
                    self._submit_ready()
                self.backend.wait(self._jobs.values(), TICK_SECONDS)
        except BaseException:
            # Detached jobs do not need this process; attached ones would be killed by `close`
            # without a checkpoint.
            if not self.backend.capabilities.detached:
                self._stop_within(GRACE_SECONDS)
            raise
        finally:
            self.backend.close()
        # Also where the loop was never entered: a plan that is complete already is shown and sent,
        # too.
        observe(self._plan.stages)
        return self.progress

    def _follow_guide(self) -> None:
        if self._guide is not None:
            self._more = self._guide.steer(self)
            self._stop_given_up()

    def _stop_given_up(self) -> None:
        """Ask their workers; now and then again, because one that just starts may miss it."""
        now = time.monotonic()
        for key in self.progress.left & self._jobs.keys():
            if now - self._asked.get(key, -math.inf) > ASK_SECONDS:
                self._asked[key] = now
                self.backend.cancel(self._jobs[key])

    # Stopping

    def _stopped(self) -> bool:
        """Tell whether nothing runs after an interrupt, or after failures that hold the sweep."""
        self.progress.interrupted = self._interrupts > 0 and not self._jobs
        # Only once nothing of ours runs: jobs that were asked to stop are still waited for.
        held = self.progress.held is not None and not self._jobs
        return self.progress.interrupted or held

    def _stop(self) -> None:
        """Ask all workers; again in every tick, because one that just starts may miss it."""
        for job in self._jobs.values():
            self.backend.cancel(job)
        if self._interrupts > 1:
            self.backend.close()

    def _stop_within(self, seconds: float) -> None:
        self._interrupts = 1
        deadline = time.monotonic() + seconds
        while self._jobs and time.monotonic() < deadline:
            self._stop()
            self._collect()
            self.backend.wait(self._jobs.values(), TICK_SECONDS)

    # Ends of jobs

    def _collect(self) -> None:
        for key in list(self._jobs):
            try:
                ended = self.backend.poll(self._jobs[key])
            except BaseException:
                del self._jobs[key]  # or it would fail again while the others are stopped
                raise
            if ended is not None:
                self._collect_job(key, self._jobs.pop(key).folder, ended)
        for key in list(self.progress.elsewhere):
            self._collect_foreign(key)

    def _collect_job(self, key: str, folder: StageFolder, ended: Ended) -> None:
        self._asked.pop(key, None)
        failure = folder.failure() if key in self.progress.left else None
        if failure is not None and failure.kind == "cancelled" and folder.cancelled_by() is None:
            folder.clear_failure()  # a scheduler calls it so; the guide stopped it, not a user
        state = folder.state()
        if state == "COMPLETE":
            self.progress.ran.add(key)
            self._complete(key)
        # Our worker left the stage because another launcher's worker holds its lease.
        elif state == "RUNNING":
            self._watch(key)
        # The user or the search stopped it: its attempt does not count against the policies.
        elif self._is_stopped(key) and folder.failure() is None:
            self._set_waiting(key)
        else:
            failure = faults.after_end(folder, ended, self._profile)
            if failure is None:
                self._set_waiting(key)
            else:
                self._fail(key, failure)

    def _is_stopped(self, key: str) -> bool:
        return self._interrupts > 0 or key in self.progress.left

    def _collect_foreign(self, key: str) -> None:
        now = time.monotonic()
        if now - self._looked.get(key, 0.0) < FOREIGN_SECONDS:
            return
        self._looked[key] = now
        folder = self.progress.folders[key]
        state = folder.state()
        failure = folder.failure()
        if state == "RUNNING":
            return
        if (
            state == "FAILED"
            and failure is not None
            and time.time() - failure.time < FINAL_SECONDS
        ):
            return
        self.progress.elsewhere.discard(key)
        if state == "COMPLETE":
            self.progress.done_elsewhere.add(key)
            self._complete(key)
        elif failure is not None and failure.kind not in self._forgivable(key):
            self._fail(key, failure)
        else:
            self._set_waiting(key)
            if key in self._cancelled_before:
                self._decide_stage_anew(key)

    def _forgivable(self, key: str) -> tuple[Kind, ...]:
        """List the ends of a worker elsewhere after which this launch goes on with the stage."""
        return ("killed", "cancelled") if key in self._cancelled_before else ("killed",)

    # States

    def _complete(self, key: str) -> None:
        self._set(key, "COMPLETE")
        self._scheduler.complete(key)
        self._changed.update(self._gatekeeper.judge(key, self._scheduler))

    def _fail(self, key: str, failure: Failure) -> None:
        self._scheduler.fail(key)
        over = [key, *self.progress.fail(key, failure)]
        self._changed.update([*over, *self._gatekeeper.shut(over, self._scheduler)])
        failures = self.progress.failures.values()
        self.progress.held = faults.hold(failures, self._profile.hold_after)

    def _watch(self, key: str) -> None:
        self.progress.elsewhere.add(key)
        self._set(key, "RUNNING")

    def _set_waiting(self, key: str) -> None:
        self._set(key, "WAITING")
        self._scheduler.again(key)

    def _set(self, key: str, state: State) -> None:
        self.progress.set(key, state)
        self._changed.add(key)

    # Submission

    def _decide_anew(self) -> None:
        """Forget what ended earlier attempts of the stages that this launch will run."""
        for key in self.progress.folders:
            self._decide_stage_anew(key)

    def _decide_stage_anew(self, key: str) -> None:
        folder = self.progress.folders[key]
        if not (self._as_user and self.progress.will_run(key)):
            return
        # Not while it runs: the failure of a running stage is the business of whoever runs it.
        if folder.state() != "RUNNING":
            folder.clear_failure()
            folder.clear_tries()
        elif folder.cancelled_by() is not None:
            self._cancelled_before.add(key)

    def _submit_ready(self) -> None:
        if time.monotonic() < self._busy_until:
            return
        # The slots first: a stage that was taken from the scheduler must be started or given back.
        while self.backend.free_slots() and (key := self._scheduler.take()) is not None:
            if self.progress.states[key] != "WAITING":  # it may run already
                continue
            try:
                self._submit(self._plan.stages[key])
            except (QueueFull, NoAnswer) as busy:
                print(f"{busy}; trying again in {BUSY_SECONDS:.0f} s", flush=True)
                self._busy_until = time.monotonic() + BUSY_SECONDS
                self._scheduler.again(key)
                return

    def _submit(self, stage: PlannedStage) -> None:
        # Looked at again right before the start: minutes may have passed since the survey, and
        # another launcher may have run the stage.
        folder = self._store.create(stage_spec(stage, self.progress))
        self.progress.folders[stage.key] = folder
        if stage.key in self.progress.damaged:
            reopen_damaged(folder)
        state = folder.state()
        if state == "COMPLETE":
            self.progress.done_elsewhere.add(stage.key)
            self._complete(stage.key)
        elif state == "RUNNING":
            self._watch(stage.key)
        elif (who := folder.cancelled_by()) is not None:
            failure = faults.cancelled(who, 0)
            folder.write_failure(failure)
            self._fail(stage.key, failure)
        else:
            # A worker that finds the lease of a dead one would wait for it to expire.
            break_dead_lease(folder)
            request = self._profile.request(stage.stage)
            self._jobs[stage.key] = self.backend.submit(folder, request)
            self._set(stage.key, "RUNNING")
