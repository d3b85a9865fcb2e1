"""Small job that looks after a launched sweep when nobody is logged in.

It runs once everything that is queued is over, or when a launcher was killed on its way: it
applies the failure policies to jobs that ended without a result, submits what is left, sends what
MLflow lacks, and has the next controller queued as long as anything is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from orchestration.backends import connect_detached, profile_options
from orchestration.backends.base import DetachedBackend, NoAnswer
from orchestration.backends.detached.journal import Journal, key_of
from orchestration.backends.detached.submission import submit_remaining
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.devices import machines
from orchestration.launching.history import find_plan
from orchestration.launching.launched import restored
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.state import Store
from orchestration.tracking.shipping import Tracking

SHIP_SECONDS = 600.0
"""How long the controller tries to reach the tracking server."""
SILENCE_SECONDS = 60.0
"""After so long a scheduler that does not answer is asked again."""


def control(
    name: str,
    runs_dir: Annotated[Path, typer.Option()],
    profile: Annotated[Path, typer.Option()],
    backend: Annotated[str, typer.Option()],
    jobs: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Look once after what the journal says under a name."""
    store = Store(runs_dir)
    # Whoever launches again takes this job out of the journal, and may be too late to cancel it.
    mine = [entry for entry in Journal(store).controllers() if entry.name == name]
    if not mine:
        print("another controller has taken over")
        return
    launched = find_plan(store, mine[0].sweep, mine[0].plan)
    plan = restored(launched, store)
    asked = load_profile(profile, profile_options())
    machine = machines(backend, jobs, asked)
    scheduler = connect_detached(backend, store, asked, jobs)

    def submit() -> bool:
        progress = survey(plan, store, lambda stage: machine(stage).site)
        # The rest was left alone by the user, with `resume --preempted` or `retry`.
        progress.left = frozenset(plan.stages) - set(map(key_of, mine[0].folders))
        return _submit(progress, store, scheduler, asked, launched.launched)

    request = launched.request
    tracking = Tracking(request.store_uri(store), store, plan, send_patch=request.send_patch)
    goes_on = True
    try:
        goes_on = _when_answered(submit)
    finally:
        # Also where the scheduler refuses: what was computed shall be seen.
        tracking.prepare(SHIP_SECONDS)
        print(tracking.finish(SHIP_SECONDS, queued=goes_on) or "MLflow is up to date")


def _when_answered(submit: Callable[[], bool]) -> bool:
    """Try until the scheduler answers, or this job's time is up."""
    # Without a deadline of its own: the scheduler's time limit ends this job.
    while True:
        try:
            return submit()
        except NoAnswer as silence:
            print(f"{silence}; trying again in {SILENCE_SECONDS:.0f} s", flush=True)
            time.sleep(SILENCE_SECONDS)


def _submit(
    progress: Progress, store: Store, backend: DetachedBackend, profile: Profile, launched: float
) -> bool:
    """Queue what is left; returns whether anything is in the queue."""
    outcome = submit_remaining(progress, store, backend, profile, print, launched=launched)
    for key, failure in progress.failures.items():
        stage = progress.plan.stages[key].stage
        print(f"{stage} {progress.folders[key].name}: {failure.message}")
    if progress.held is not None:
        print(progress.held)
    print(
        f"{outcome.submitted} stages submitted, {len(outcome.live)} were queued, "
        f"{len(outcome.left)} left for later; {progress.count('COMPLETE')} complete"
    )
    return outcome.goes_on


if __name__ == "__main__":
    typer.run(control)
