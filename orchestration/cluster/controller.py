"""The small job that looks after a launched sweep when nobody is logged in.

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

from orchestration.backends.base import NoAnswer
from orchestration.backends.slurm import SlurmBackend
from orchestration.cluster.journal import Journal, key_of
from orchestration.cluster.submission import submit_remaining
from orchestration.execution.progress import Progress, survey
from orchestration.forecast.devices import machines
from orchestration.launching.launched import LaunchedPlan, all_launches, kept_sweep
from orchestration.plan.graph import Plan, make_plan
from orchestration.policy.profile import Profile, load_profile
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.shipping import Tracking

SHIP_SECONDS = 600.0
"""How long the controller tries to reach the tracking server."""
SILENCE_SECONDS = 60.0
"""After so long a scheduler that does not answer is asked again."""


def control(
    name: str,
    runs_dir: Annotated[Path, typer.Option()],
    profile: Annotated[Path, typer.Option()],
    jobs: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Look once after what the journal says under a name."""
    store = Store(runs_dir)
    mine = [entry for entry in Journal(store).controllers() if entry.name == name]
    if not mine:
        print("another controller has taken over")
        return
    launched = launched_plan(store, mine[0].sweep, mine[0].plan)
    plan = replan(launched, store)
    asked = load_profile(profile)
    machine = machines("slurm", jobs, asked)

    def submit() -> bool:
        progress = survey(plan, store, lambda stage: machine(stage).site)
        progress.left = frozenset(plan.stages) - set(map(key_of, mine[0].folders))
        return _submit(progress, store, asked, jobs, launched.launched)

    request = launched.request
    tracking = Tracking(request.store_uri(store), store, plan, send_patch=request.send_patch)
    goes_on = True
    try:
        goes_on = _when_answered(submit)
    finally:
        tracking.prepare(SHIP_SECONDS)
        print(tracking.finish(SHIP_SECONDS, queued=goes_on) or "MLflow is up to date")


def _when_answered(submit: Callable[[], bool]) -> bool:
    """Try until the scheduler answers, or this job's time is up."""
    while True:
        try:
            return submit()
        except NoAnswer as silence:
            print(f"{silence}; trying again in {SILENCE_SECONDS:.0f} s", flush=True)
            time.sleep(SILENCE_SECONDS)


def _submit(
    progress: Progress, store: Store, profile: Profile, jobs: int | None, launched: float
) -> bool:
    """Queue what is left; whether anything is in the queue."""
    backend = SlurmBackend(jobs, profile, store)
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


def launched_plan(store: Store, sweep: str, plan_key: str) -> LaunchedPlan:
    """The record of a launched plan.

    Raises:
        ValueError: there is none.
    """
    for launched in all_launches(store, sweep):
        if launched.key == plan_key:
            return launched
    raise ValueError(f"plan {plan_key} of {sweep} was never launched into {store.root}")


def replan(launched: LaunchedPlan, store: Store) -> Plan:
    """The plan again, from the YAML that was kept at launch.

    Raises:
        ValueError: this code makes another plan of it.
    """
    loaded = load_sweep(kept_sweep(launched, store), launched.scale, launched.request.overrides)
    plan = make_plan(loaded, expand(loaded))
    if plan.key != launched.key:
        raise ValueError(
            f"{launched.sweep}: this code makes plan {plan.key} of what was launched as "
            f"{launched.key}; launch the sweep again"
        )
    return plan


if __name__ == "__main__":
    typer.run(control)
