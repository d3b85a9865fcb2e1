"""Launches a search: the sweep's trials are asked for one after the other, and told.

On this machine and on Ray the launcher asks and tells; on SLURM a job does, and the launcher
leaves, or stays and watches.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from shlex import quote

from rich.console import Console

from gigatok.text.credentials import shown
from orchestration.backends.base import Backend
from orchestration.execution.progress import Progress, survey
from orchestration.exits import EXIT_FAILED, EXIT_INTERRUPTED
from orchestration.launching.foreground import print_counts, run
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.launching.runner import Runner
from orchestration.plan.graph import search_key
from orchestration.policy.profile import Profile
from orchestration.runs.logins import with_login
from orchestration.runs.state import Store
from orchestration.search.asking import best_trials
from orchestration.search.report import findings, print_search, search_json
from orchestration.search.run import Searcher
from orchestration.sweep.definition import Sweep
from orchestration.tracking.shipping import Tracking


@dataclass(frozen=True)
class Searching:
    """A search that was opened, and what it is driven with."""

    searcher: Searcher
    progress: Progress
    tracking: Tracking

    @staticmethod
    def open(
        sweep: Sweep, store: Store, request: LaunchRequest, profile: Profile, uri: str
    ) -> Searching:
        """The search of a sweep, with what was found before.

        Raises:
            ValueError: the study's storage cannot be opened.
        """
        searcher = open_searcher(sweep, store, request, profile)
        progress = survey(searcher.plan, store)
        progress.left = searcher.left() - progress.reused
        tracking = Tracking(uri, store, searcher.plan, send_patch=request.send_patch)
        launched = time.time()

        def changed(searcher: Searcher) -> None:
            record_launch(searcher.plan, store, request, launched, searcher.pruned())
            tracking.grow(searcher.plan)
            tracking.tell(findings(searcher))

        changed(searcher)
        searcher.changed = changed
        return Searching(searcher, progress, tracking)


def open_searcher(
    sweep: Sweep, store: Store, request: LaunchRequest, profile: Profile
) -> Searcher:
    """The study of a sweep's search.

    Raises:
        ValueError: its storage cannot be opened.
    """
    search, key = sweep.search, search_key(sweep)
    assert search is not None
    assert key is not None
    if request.storage is not None:
        search = replace(search, storage=with_login(store, request.storage))
    return Searcher(sweep, search, store, key, profile)


@contextmanager
def held(store: Store, plan: str) -> Iterator[None]:
    """One process at a time asks and tells for a search; the lock falls with it.

    Raises:
        ValueError: another one does.
    """
    store.root.mkdir(parents=True, exist_ok=True)
    with (store.root / f".search-{plan}.lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another launch runs this search in {store.root}; "
                "`python -m orchestration status SWEEP -w` follows it"
            ) from error
        yield


def run_search(
    sweep: Sweep,
    store: Store,
    request: LaunchRequest,
    backend: Backend,
    profile: Profile,
    uri: str,
    console: Console,
    *,
    as_json: bool = False,
) -> int:
    """Search until the budget is spent; returns the exit code.

    Raises:
        ValueError: the study's storage cannot be opened, or another launch runs the search.
    """
    key = search_key(sweep)
    assert key is not None
    with held(store, key):
        searching = Searching.open(sweep, store, request, profile, uri)
        progress = searching.progress
        runner = Runner(progress, store, backend, profile, searching.searcher)
        run(runner, searching.tracking, console)
    if not as_json:
        print_counts(progress, console)
    print_found(searching.searcher, uri, console, as_json=as_json)
    if progress.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if progress.held is not None else exit_code(searching.searcher)


def print_found(searcher: Searcher, uri: str, console: Console, *, as_json: bool) -> None:
    """What was found, and where everything is."""
    if as_json:
        print(json.dumps(search_json(searcher), allow_nan=False))
        return
    print_search(searcher, console)
    where = searcher.search.storage or searcher.journal
    console.print(f"study     optuna-dashboard {quote(shown(str(where)))}", soft_wrap=True)
    console.print(f"runs      {shown(uri)}", soft_wrap=True)


def exit_code(searcher: Searcher) -> int:
    """0 if any trial came to a result; failures of others are part of a search."""
    first = searcher.rounds[0]
    return 0 if best_trials(first.study, first.search) else EXIT_FAILED
