"""Holds a queued sweep whose stages all fail alike: what waits leaves the queue.

Called in the job whose stage fails, because nobody else may be there.
`orchestration.launching.runner` does the same for backends that it drives itself.
"""

from __future__ import annotations

from orchestration.backends import connect_detached
from orchestration.backends.detached.journal import CONTROLLER, Journal, Submission
from orchestration.launching.history import all_launches
from orchestration.policy import faults
from orchestration.policy.profile import Profile
from orchestration.runs.state import StageFolder, Store


def hold_queue(folder: StageFolder, profile: Profile) -> str | None:
    """Take the plans of a failed stage out of the queue if too many stages failed like it.

    What runs goes on. The controller then starts nothing new, and `resume` queues again.

    Returns:
        Why; None: it was not necessary.
    """
    # A stage may be part of several plans, queued by several launches.
    # Without a backend, because the job knows its own scheduler only, and the stage may also be in
    # a plan that was queued elsewhere.
    journal = Journal(folder.store)
    name = f"{folder.path.parent.name}/{folder.name}"
    said = None
    for controller in journal.controllers():
        if name in controller.folders:
            why = _why(controller, folder.store, profile)
            if why is not None:
                _empty_queue(controller, folder.store, profile)
            said = said or why
    return said


def _why(controller: Submission, store: Store, profile: Profile) -> str | None:
    launches = all_launches(store, controller.sweep)
    # Failures from before the launch do not count: the user has seen them and launched again.
    since = next((one.launched for one in launches if one.key == controller.plan), 0.0)
    stages = (StageFolder.at(store.stages / folder) for folder in controller.folders)
    return faults.hold_on_disk(stages, profile.hold_after, since)


def _empty_queue(controller: Submission, store: Store, profile: Profile) -> None:
    # Not the controllers: they come to the same end by themselves, and send the rest to MLflow.
    jobs = [
        entry.job
        for entry in Journal(store, controller.backend).submissions()
        if entry.plan == controller.plan and entry.kind != CONTROLLER and entry.job is not None
    ]
    backend = connect_detached(controller.backend, store, profile)
    backend.cancel_jobs(jobs, waiting_only=True)
