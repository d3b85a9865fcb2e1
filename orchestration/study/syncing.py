"""Sends to MLflow what it lacks, without running anything.

All that MLflow shows is on disk in the runs directory. A database that was damaged or deleted is
therefore made again from there, of every plan that was ever launched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestration.execution.progress import survey
from orchestration.execution.results import trial_metrics
from orchestration.launching.claimed import claims_found, read_claimed
from orchestration.launching.drawn import keep
from orchestration.launching.history import all_launches
from orchestration.launching.launched import LaunchedPlan, restored
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile
from orchestration.runs.files import Busy
from orchestration.runs.state import Store
from orchestration.runs.studies import launched_names
from orchestration.tracking import sqlite_file
from orchestration.tracking.ledger import Destination, parse_uri
from orchestration.tracking.shipping import Tracking
from orchestration.tracking.sweep_runs import Findings

SHIP_SECONDS = 3600.0
"""How long one plan may take: a sweep of thousands of stages is sent in minutes."""


@dataclass(frozen=True)
class Sent:
    """Plan that was sent to MLflow, or not.

    Attributes:
        plan: sweep, scale and key.
        text: where everything is, or what is missing and why.
        whole: all of it has arrived.
    """

    plan: str
    text: str
    whole: bool

    def __str__(self) -> str:
        return f"{self.plan}: {self.text}"


def send_all(
    store: Store, sweeps: Sequence[str] = (), tracking_uri: str | None = None
) -> Iterator[Sent]:
    """Send what MLflow lacks of sweeps that were launched, of all by default; runs nothing.

    Raises:
        ValueError: a sweep was never launched here.
    """
    # A list, so that a wrong name is refused before anything is sent.
    for launched in list(launches_of(store, sweeps)):
        yield send(store, launched, tracking_uri)


def set_databases_aside(
    store: Store, sweeps: Sequence[str] = (), tracking_uri: str | None = None
) -> list[Path]:
    """Rename the databases of these sweeps, so that the next `send_all` makes them again.

    Raises:
        ValueError: one is a server, or another process uses it right now.
    """
    launches = list(launches_of(store, sweeps))
    # Each once: sweeps share a database, which must be set aside before any of them is sent.
    destinations = {_destination(store, one, tracking_uri) for one in launches}
    return [path for destination in destinations for path in set_aside(destination)]


def launches_of(store: Store, sweeps: Sequence[str]) -> Iterator[LaunchedPlan]:
    """Read every plan of these sweeps that was launched, or of all; the first launch first.

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


def set_aside(destination: Destination) -> list[Path]:
    """Rename a database; returns what its files are called now.

    Raises:
        ValueError: it is a server, or another process makes or moves it right now.
    """
    if destination.database is None:
        raise ValueError(
            f"{destination.shown} is a server, which looks after its database itself; "
            "`sync` without --rebuild sends what it lacks"
        )
    # Nothing was ever written there.
    if not destination.database.parent.is_dir():
        return []
    try:
        return list(sqlite_file.set_aside(destination.database))
    except Busy as error:
        raise ValueError(str(error)) from error


def send(store: Store, launched: LaunchedPlan, tracking_uri: str | None) -> Sent:
    """Send one plan."""
    name = f"{launched.sweep} {launched.scale} {launched.key}"
    try:
        plan, findings = _plan_of(store, launched)
    except ValueError as error:
        return Sent(name, f"not sent: {error}", whole=False)
    uri = _uri(store, launched, tracking_uri)
    patch = launched.request.send_patch
    tracking = Tracking(uri, store, plan, launched=launched.launched, send_patch=patch)
    # Two processes must not send the same spool at once.
    if tracking.has_owner():
        return Sent(name, "a launch of it runs here, and sends it", whole=True)
    tracking.tell(findings)
    tracking.prepare(SHIP_SECONDS)
    unsent = tracking.finish(SHIP_SECONDS)
    if unsent:
        return Sent(name, str(unsent), whole=False)
    text = f"all is in {parse_uri(uri).shown}"
    if any(trial_metrics(survey(plan, store)).values()):
        # They are made from what was just sent; those that were sent before stay.
        problem = keep(plan, store, uri, changed=False)
        text += "" if problem is None else f", but report and figure: {problem}"
    return Sent(name, text, whole=True)


def _plan_of(store: Store, launched: LaunchedPlan) -> tuple[Plan, Findings]:
    """Restore a launched plan; of a search, with all trials that it has asked for."""
    plan = restored(launched, store)
    if plan.sweep.search is None:
        return plan, claims_found(read_claimed(plan, store))
    # Optuna takes half a second to import.
    from orchestration.search.launch import open_searcher
    from orchestration.search.report import findings

    # The profile of a launch decides nothing here, and may be gone since.
    searcher = open_searcher(plan, store, launched.request, Profile())
    return searcher.plan, findings(searcher)


def _destination(store: Store, launched: LaunchedPlan, tracking_uri: str | None) -> Destination:
    return parse_uri(_uri(store, launched, tracking_uri))


def _uri(store: Store, launched: LaunchedPlan, tracking_uri: str | None) -> str:
    return tracking_uri or launched.request.store_uri(store)
