"""Holds a queued sweep whose stages all fail alike: what waits leaves the queue.

Called in the job whose stage fails, because nobody else may be there.
`orchestration.launching.runner` does the same for backends that it drives itself.
"""

from __future__ import annotations

import subprocess

from orchestration.cluster.journal import CONTROLLER, Journal, Submission
from orchestration.launching.launched import all_launches
from orchestration.policy import faults
from orchestration.policy.profile import Profile
from orchestration.runs.state import StageFolder, Store


def hold_queue(folder: StageFolder, profile: Profile) -> str | None:
    """Take the plans of a failed stage out of the queue if too many stages failed like it.

    What runs goes on. The controller then starts nothing new, and `resume` queues again.

    Returns:
        Why; None: it was not necessary.
    """
    journal = Journal(folder.store)
    name = f"{folder.path.parent.name}/{folder.name}"
    said = None
    for controller in journal.controllers():
        if name in controller.folders:
            why = _why(controller, folder.store, profile)
            if why is not None:
                _empty_queue(journal, controller.plan)
            said = said or why
    return said


def _why(controller: Submission, store: Store, profile: Profile) -> str | None:
    launches = all_launches(store, controller.sweep)
    since = next((one.launched for one in launches if one.key == controller.plan), 0.0)
    stages = (StageFolder(store.stages / folder) for folder in controller.folders)
    return faults.hold_on_disk(stages, profile.hold_after, since)


def _empty_queue(journal: Journal, plan: str) -> None:
    jobs = [
        entry.job
        for entry in journal.submissions()
        if entry.plan == plan and entry.kind != CONTROLLER and entry.job is not None
    ]
    if jobs:
        subprocess.run(["scancel", "--quiet", "--state=PENDING", *jobs], check=False)
