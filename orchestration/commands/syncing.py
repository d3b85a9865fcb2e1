"""`python -m orchestration sync [SWEEP…]`: send to MLflow what it lacks, without running anything.

All that MLflow shows is on disk in the runs directory. A database that was damaged or deleted is
therefore made again from there, of every plan that was ever launched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from orchestration.exits import EXIT_FAILED, fail
from orchestration.launching.launched import LaunchedPlan, all_launches
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from orchestration.runs.studies import launched_names
from orchestration.tracking import sqlite_file
from orchestration.tracking.ledger import Busy, Destination, parse_uri
from orchestration.tracking.shipping import Tracking
from orchestration.tracking.sweep_runs import Findings

SHIP_SECONDS = 3600.0
"""How long one plan may take: a sweep of thousands of stages is sent in minutes."""


def sync(
    sweeps: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Set the database aside and make it again.")
    ] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow; default: of each sweep, as launched.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
) -> None:
    """Send what MLflow lacks of the sweeps that were launched; runs nothing."""
    store = Store(runs_dir)
    try:
        launches = list(launches_of(store, sweeps or []))
        if rebuild:
            for destination in {_destination(store, one, tracking_uri) for one in launches}:
                set_aside(destination)
    except (ValueError, Busy) as error:
        fail(error)
    failed = [not send(store, launched, tracking_uri) for launched in launches]
    raise typer.Exit(EXIT_FAILED if any(failed) else 0)


def launches_of(store: Store, sweeps: list[str]) -> Iterator[LaunchedPlan]:
    """Every plan of these sweeps that was launched, or of all; the first launch first.

    Raises:
        ValueError: a sweep was never launched here.
    """
    known = launched_names(store)
    for sweep in sweeps or known:
        found = list(all_launches(store, sweep))
        # Of all, a folder that no launch made is none; its files were named when they were read.
        if not found and sweeps:
            raise ValueError(
                f"{sweep}: never launched into {store.root} "
                f"(launched there: {', '.join(known) or 'none'}); nothing of it can be sent"
            )
        # In the order of launches, so that shared stages lie below the sweep that built them.
        yield from reversed(found)


def set_aside(destination: Destination) -> None:
    """Rename a database, and say how it is called now.

    Raises:
        ValueError: it is a server.
        Busy: another process makes or moves it right now.
    """
    if destination.database is None:
        raise ValueError(
            f"{destination.shown} is a server, which looks after its database itself; "
            "`sync` without --rebuild sends what it lacks"
        )
    if destination.database.parent.is_dir():
        for path in sqlite_file.set_aside(destination.database):
            print(f"set aside {path}")


def send(store: Store, launched: LaunchedPlan, tracking_uri: str | None) -> bool:
    """Send one plan; whether all of it has arrived."""
    name = f"{launched.sweep} {launched.scale} {launched.key}"
    try:
        plan, findings = _plan_of(store, launched)
    except ValueError as error:
        print(f"{name}: not sent: {error}")
        return False
    uri = _uri(store, launched, tracking_uri)
    patch = launched.request.send_patch
    tracking = Tracking(uri, store, plan, launched=launched.launched, send_patch=patch)
    if tracking.has_owner():
        print(f"{name}: a launch of it runs here, and sends it")
        return True
    tracking.tell(findings)
    tracking.prepare(SHIP_SECONDS)
    unsent = tracking.finish(SHIP_SECONDS)
    print(f"{name}: {unsent or f'all is in {parse_uri(uri).shown}'}")
    return not unsent


def _plan_of(store: Store, launched: LaunchedPlan) -> tuple[Plan, Findings]:
    """Make a launched plan again; of a search, with all trials that it has asked for."""
    # Both take long to import.
    from orchestration.cluster.controller import replan
    from orchestration.search.launch import open_searcher
    from orchestration.search.report import findings

    plan = replan(launched, store)
    if plan.sweep.search is None:
        return plan, Findings()
    # The profile of a launch decides nothing here, and may be gone since.
    searcher = open_searcher(plan.sweep, store, launched.request, Profile())
    return searcher.plan, findings(searcher)


def _destination(store: Store, launched: LaunchedPlan, tracking_uri: str | None) -> Destination:
    return parse_uri(_uri(store, launched, tracking_uri))


def _uri(store: Store, launched: LaunchedPlan, tracking_uri: str | None) -> str:
    return tracking_uri or launched.request.store_uri(store)
