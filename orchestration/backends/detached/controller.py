"""Work of the small job that looks after a launched sweep when nobody is logged in.

It runs once everything that is queued is over, or when a launcher was killed on its way: it
applies the failure policies to jobs that ended without a result, submits what is left, sends what
MLflow lacks, and has the next controller queued as long as anything is. Of a sweep with seeds
until decided it begins the next round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from orchestration.backends.base import NoAnswer
from orchestration.backends.detached.journal import Submission, key_of
from orchestration.backends.detached.submission import submit_remaining
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.devices import machines
from orchestration.launching.claimed import claims_found, record_claims
from orchestration.launching.drawn import keep
from orchestration.launching.launch import Launch
from orchestration.launching.launched import record_launch
from orchestration.launching.rounds import added_line, due_seeds, hours_limit, record_refused
from orchestration.tracking.shipping import Tracking

SHIP_SECONDS = 600.0
"""How long the controller tries to reach the tracking server."""
SILENCE_SECONDS = 60.0
"""After so long a scheduler that does not answer is asked again."""


def control(launch: Launch, mine: Submission, launched: float) -> None:
    """Look once after a plan, and after the seeds that are due once it is complete.

    Args:
        launch: of the plan, on the scheduler that runs this job.
        mine: the journal's entry of this job, which names the stages to look after.
        launched: when the user launched the plan, UNIX seconds.
    """
    # The rest was left alone by the user, with `resume --preempted` or `retry`.
    left = frozenset(launch.plan.stages) - set(map(key_of, mine.folders))
    if look_after(launch, launched, left):
        return
    following = next_round(launch)
    if following is not None:
        record_launch(following.plan, following.store, following.request, launched)
        # Followed by a controller of its own.
        look_after(following, launched)


def look_after(launch: Launch, launched: float, left: frozenset[str] = frozenset()) -> bool:
    """Queue what is left of a plan, and send what MLflow lacks.

    Args:
        launch: of the plan.
        launched: when the user launched it, UNIX seconds.
        left: keys of stages to leave alone.

    Returns:
        Whether anything is in the queue.
    """
    plan, store = launch.plan, launch.store
    machine = machines(launch.scheduler.name, None, launch.profile)

    tracking = Tracking(launch.uri, store, plan, send_patch=launch.request.send_patch)

    def submit() -> bool:
        progress = survey(plan, store, lambda stage: machine(stage).site)
        progress.left = left
        # What is complete may call for a prediction, before the model that it is about starts.
        tracking.tell(claims_found(record_claims(progress)))
        return _submit(launch, progress, launched)

    goes_on = True
    try:
        goes_on = _when_answered(submit)
    finally:
        # Also where the scheduler refuses: what was computed shall be seen.
        tracking.prepare(SHIP_SECONDS)
        print(tracking.finish(SHIP_SECONDS, queued=goes_on) or "MLflow is up to date")
    if not goes_on and (problem := keep(plan, store, launch.uri)) is not None:
        print(f"MLflow lacks report and figure: {problem}")
    return goes_on


def next_round(launch: Launch) -> Launch | None:
    """Plan the seeds that undecided claims call for; None: none is due, or no budget is left."""
    due = due_seeds(launch.plan, launch.store, hours_limit(launch.request, launch.profile))
    if due.refused is not None:
        print(due.refused)
        record_refused(due, launch.store)
    if due.plan.key == launch.plan.key:
        return None
    print(added_line(launch.plan, due.plan))
    return replace(launch, plan=due.plan)


def _when_answered(submit: Callable[[], bool]) -> bool:
    """Try until the scheduler answers, or this job's time is up."""
    # Without a deadline of its own: the scheduler's time limit ends this job.
    while True:
        try:
            return submit()
        except NoAnswer as silence:
            print(f"{silence}; trying again in {SILENCE_SECONDS:.0f} s", flush=True)
            time.sleep(SILENCE_SECONDS)


def _submit(launch: Launch, progress: Progress, launched: float) -> bool:
    """Queue what is left; returns whether anything is in the queue."""
    submitted = submit_remaining(launch, progress, print, launched=launched)
    for key, failure in progress.failures.items():
        stage = progress.plan.stages[key].stage
        print(f"{stage} {progress.folders[key].name}: {failure.message}")
    if progress.held is not None:
        print(progress.held)
    print(
        f"{submitted.submitted} stages submitted, {len(submitted.live)} were queued, "
        f"{len(submitted.left)} left for later; {progress.count('COMPLETE')} complete"
    )
    return submitted.goes_on
