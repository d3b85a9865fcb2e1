"""Command of the job that looks after a launched plan: `python -m orchestration.commands.control`.

Launches queue it on a cluster; nobody types it. The journal says what it looks after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.backends import connect_detached, profile_options
from orchestration.backends.detached.controller import control as control_sweep
from orchestration.backends.detached.journal import Journal
from orchestration.launching.history import find_plan
from orchestration.launching.launch import Launch
from orchestration.launching.launched import restored
from orchestration.policy.profile import load_profile
from orchestration.runs.state import Store


def control(
    name: str,
    runs_dir: Annotated[Path, typer.Option()],
    profile: Annotated[Path, typer.Option()],
    backend: Annotated[str, typer.Option()],
    jobs: Annotated[int | None, typer.Option()] = None,
    first: Annotated[bool, typer.Option("--first")] = False,
) -> None:
    """Look after the plan that the journal names under the name of this job."""
    store = Store(runs_dir)
    # Whoever launches again takes this job out of the journal, and may be too late to cancel it.
    controllers = Journal(store, backend).controllers()
    mine = next((entry for entry in controllers if entry.name == name), None)
    if mine is None:
        print("another controller has taken over")
        return
    launched = find_plan(store, mine.sweep, mine.plan)
    asked = load_profile(profile, profile_options())
    scheduler = connect_detached(backend, store, asked, jobs)
    launch = Launch(restored(launched, store), launched.request, store, scheduler, asked)
    if launch.plan.sweep.search is None:
        control_sweep(launch, mine, launched.launched)
        return
    # Optuna takes half a second to import.
    from orchestration.search.controller import control as control_search

    control_search(launch, mine, first=first)


if __name__ == "__main__":
    typer.run(control)
