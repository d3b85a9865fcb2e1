"""Command of the job that looks after a launched plan: `python -m orchestration.commands.control`.

Launches queue it on a cluster; nobody types it. The journal says what it looks after.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gigatok.plugins import PluginError
from gigatok.text.command_lines import command
from orchestration.backends import connect_detached, profile_options
from orchestration.backends.detached.controller import control as control_sweep
from orchestration.backends.detached.journal import Journal
from orchestration.exits import EXIT_REFUSED
from orchestration.forecast.budget import record_refusal
from orchestration.launching.history import find_plan
from orchestration.launching.launch import Launch
from orchestration.launching.launched import LaunchedPlan, restored
from orchestration.plan.graph import Plan
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
    plan = _plan_here(launched, store)
    asked = load_profile(profile, profile_options())
    scheduler = connect_detached(backend, store, asked, jobs)
    launch = Launch(plan, launched.request, store, scheduler, asked)
    if launch.plan.sweep.search is None:
        control_sweep(launch, mine, launched.launched)
        return
    # Optuna takes half a second to import.
    from orchestration.search.controller import control as control_search

    control_search(launch, mine, first=first)


def _plan_here(launched: LaunchedPlan, store: Store) -> Plan:
    """Build the plan again; without its plug-ins this job ends, and `status` says why."""
    try:
        return restored(launched, store)
    except PluginError as error:
        again = command("orchestration", "resume", launched.sweep)
        why = (
            f"{error}; nothing more is queued: install it for {sys.executable}, with which jobs "
            f"run, then `{again}`"
        )
        # Nobody reads this job's output: the record is what `status` shows.
        record_refusal(store, launched.sweep, launched.key, launched.scale, [why])
        print(why, file=sys.stderr)
        raise typer.Exit(EXIT_REFUSED) from error


if __name__ == "__main__":
    typer.run(control)
