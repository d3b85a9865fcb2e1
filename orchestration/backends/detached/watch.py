"""Follows a plan whose jobs run without this process, by looking at the stage folders."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestration.execution.progress import Progress
from orchestration.execution.scheduler import pass_failure_downstream
from orchestration.launching.runner import Observe
from orchestration.runs.state import State

LOOK_SECONDS = 1.0
QUEUE_SECONDS = 60.0
"""How often the scheduler is asked whether anything is still queued."""
SURE_SECONDS = 5.0
"""A failure may be followed by another attempt, or by the scheduler's next move, within this."""
WAITED = 0.2


class Watcher:
    """Keeps the states of a plan up to date until nothing is left to wait for."""

    stopping = "no longer watching; the jobs go on"

    def __init__(self, progress: Progress, still_queued: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            progress: the survey of the plan; kept up to date.
            still_queued: asks the scheduler whether any job of the plan is left.
        """
        self.progress = progress
        self._still_queued = still_queued
        self._interrupted = False

    @property
    def goes_on(self) -> bool:
        """Tell whether jobs may still be queued or running."""
        return not self.progress.finished

    def interrupt(self) -> None:
        """Stop watching."""
        self._interrupted = True

    def run(self, observe: Observe) -> Progress:
        """Watch until all is done or failed, nothing is queued any more, or the user interrupts.

        Args:
            observe: called with the keys of stages that changed or are running.
        """
        asked = settled = time.monotonic()
        while not self._interrupted:
            changed = self._look()
            now = time.monotonic()
            if changed or not self.progress.finished:
                settled = now
            observe(changed | self._in("RUNNING"))
            if self.progress.finished and (
                not self.progress.failures or now - settled > SURE_SECONDS
            ):
                break
            # A queue that was emptied by hand would otherwise be waited for without end. The last
            # job may have ended between the two looks, hence the second.
            if now - asked > QUEUE_SECONDS and not self.progress.finished:
                asked = now
                if not self._still_queued() and not self._look():
                    break
            self._pause()
        self.progress.interrupted = self._interrupted
        observe(self.progress.states)
        return self.progress

    def _pause(self) -> None:
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until and not self._interrupted:
            time.sleep(WAITED)

    def _in(self, wanted: State) -> set[str]:
        return {key for key, state in self.progress.states.items() if state == wanted}

    def _look(self) -> set[str]:
        """Read all folders; returns the keys of what changed."""
        progress = self.progress
        before = dict(progress.states)
        now: dict[str, State] = {
            # Complete stages stay so: their folders, most of all in the end, are not read again.
            key: "COMPLETE" if state == "COMPLETE" else progress.folders[key].state()
            for key, state in before.items()
        }
        inputs = progress.graph.inputs
        # No folder says so: a stage that never starts has nobody to write into it.
        now |= dict.fromkeys(pass_failure_downstream(inputs, now), "UPSTREAM_FAILED")
        # Built anew in every look: a retry removes FAILED.json, and the failure must go with it.
        progress.failures.clear()
        for key, state in now.items():
            failure = progress.folders[key].failure() if state == "FAILED" else None
            if failure is not None:
                progress.failures[key] = failure
            if state == "COMPLETE" != before[key]:
                progress.ran.add(key)
            progress.set(key, state)
            if state == "WAITING" and (why := progress.folders[key].held()) is not None:
                progress.held_stages[key] = why
            else:
                progress.held_stages.pop(key, None)
        return {key for key, state in now.items() if state != before[key]}
