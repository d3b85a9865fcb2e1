"""Runs a plan: skips what is complete, submits what is ready, passes failure downstream.

What is next is decided by `orchestration.scheduler`. The stage folders are the truth: a stage that
another launcher runs is waited for, not run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from orchestration import faults
from orchestration.backends.base import Backend, Ended, Job
from orchestration.calibration import load_calibration
from orchestration.cost import predict, seconds_for_order
from orchestration.gates import Gatekeeper
from orchestration.plan import PlannedStage
from orchestration.profile import Profile
from orchestration.progress import Progress, stage_spec
from orchestration.scheduler import ORDERS, Scheduler
from orchestration.state import Failure, StageFolder, State, Store

TICK_SECONDS = 0.1
FOREIGN_SECONDS = 0.5
"""How often the folder of a stage that somebody else runs is looked at."""
GRACE_SECONDS = 10.0
"""How long workers may take to save a checkpoint when the launcher itself breaks."""

Observe = Callable[[Iterable[str]], None]


class Runner:
    """Drives one plan on one backend until nothing is left or the user interrupts."""

    stopping = "stopping: running stages save a checkpoint … (again: kill them)"
    goes_on = False

    def __init__(
        self, progress: Progress, store: Store, backend: Backend, profile: Profile
    ) -> None:
        """Prepare a run.

        Args:
            progress: the survey of the plan; kept up to date.
            store: the runs directory.
            backend: where stages run.
            profile: what they ask for, and how often what is tried again.
        """
        self.progress = progress
        self.backend = backend
        self._profile = profile
        self._plan = progress.plan
        self._store = store
        self._jobs: dict[str, Job] = {}
        self._looked: dict[str, float] = {}
        self._changed: set[str] = set()
        self._interrupts = 0
        calibration = load_calibration(store)
        costs = predict(self._plan, calibration, calibration.newest_site)
        progress.costs = costs
        predicted = {key: cost.seconds for key, cost in costs.items()}
        self._gatekeeper = Gatekeeper(progress, store, profile.gates, predicted)
        trials = [trial.stages.values() for trial in self._plan.trials]
        self._scheduler = Scheduler(
            progress.graph,
            ORDERS[profile.order](progress.graph, trials, seconds_for_order(costs)),
            complete=progress.reused,
            skipped=[key for key in self._plan.stages if not progress.will_run(key)],
            gates=self._gatekeeper.guards(),
        )

    def interrupt(self) -> None:
        """Stop: running stages save a checkpoint first. A second call kills them."""
        self._interrupts += 1

    def run(self, observe: Observe) -> Progress:
        """Run until done, failed everywhere, or interrupted.

        Args:
            observe: called every tick with the keys of stages that changed or are running.
        """
        self._decide_anew()
        self._gatekeeper.look(self._scheduler)
        self.progress.slots = self.backend.free_slots()
        try:
            while not self.progress.finished and not self._stopped():
                self._collect()
                if self._interrupts:
                    self._stop()
                elif self.progress.held is None:
                    self._submit_ready()
                observe(self._changed | set(self._jobs))
                self._changed.clear()
                time.sleep(TICK_SECONDS)
        except BaseException:
            self._stop_within(GRACE_SECONDS)
            raise
        finally:
            self.backend.close()
        observe(self._plan.stages)
        return self.progress

    # Stopping

    def _stopped(self) -> bool:
        """Whether nothing runs any more after an interrupt, or after failures hold the sweep."""
        self.progress.interrupted = self._interrupts > 0 and not self._jobs
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
            time.sleep(TICK_SECONDS)

    # Ends of jobs

    def _collect(self) -> None:
        for key in list(self._jobs):
            ended = self.backend.poll(self._jobs[key])
            if ended is not None:
                self._collect_job(key, self._jobs.pop(key).folder, ended)
        for key in list(self.progress.elsewhere):
            self._collect_foreign(key)

    def _collect_job(self, key: str, folder: StageFolder, ended: Ended) -> None:
        state = folder.state()
        if state == "COMPLETE":
            self.progress.ran.add(key)
            self._complete(key)
        elif state == "RUNNING":
            self._watch(key)
        elif self._interrupts and folder.failure() is None:
            self._set_waiting(key)
        else:
            failure = faults.after_end(folder, ended, self._profile)
            if failure is None:
                self._set_waiting(key)
            else:
                self._fail(key, failure)

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
        self.progress.elsewhere.discard(key)
        if state == "COMPLETE":
            self.progress.done_elsewhere.add(key)
            self._complete(key)
        elif failure is not None and failure.kind != "killed":
            self._fail(key, failure)
        else:
            self._set_waiting(key)

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
        for key, folder in self.progress.folders.items():
            if self.progress.will_run(key) and folder.state() != "RUNNING":
                folder.clear_failure()
                folder.clear_tries()

    def _submit_ready(self) -> None:
        while self.backend.free_slots() and (key := self._scheduler.take()) is not None:
            self._submit(self._plan.stages[key])

    def _submit(self, stage: PlannedStage) -> None:
        folder = self._store.create(stage_spec(stage, self.progress.folders))
        self.progress.folders[stage.key] = folder
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
            request = self._profile.request(stage.stage)
            self._jobs[stage.key] = self.backend.submit(folder, request)
            self._set(stage.key, "RUNNING")
