"""Launch of a search: its trials are asked for one after the other, and told.

The launcher asks and tells; on a detached backend a job does, and the launcher leaves, or stays
and watches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from shlex import quote

from rich.console import Console

from gigatok.text.command_lines import command
from gigatok.text.credentials import shown
from orchestration.execution.progress import Progress, survey
from orchestration.exits import Outcome
from orchestration.launching.drawn import keep
from orchestration.launching.foreground import run
from orchestration.launching.history import known_plan
from orchestration.launching.launch import Launch
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.launching.runner import Runner
from orchestration.plan.graph import Plan
from orchestration.policy.profile import Profile
from orchestration.runs.files import Busy, exclusive
from orchestration.runs.logins import with_login
from orchestration.runs.state import Store
from orchestration.search.asking import best_trials
from orchestration.search.report import findings, print_search, search_json
from orchestration.search.run import Searcher
from orchestration.tracking.shipping import Tracking


@dataclass(frozen=True)
class Searching:
    """Search that was opened, and what it is driven with."""

    searcher: Searcher
    progress: Progress
    tracking: Tracking

    @staticmethod
    def open(launch: Launch) -> Searching:
        """Open the search of a plan, with what was found before.

        Raises:
            ValueError: the study's storage cannot be opened.
        """
        store, request = launch.store, launch.request
        searcher = launched_searcher(launch)
        progress = survey(searcher.plan, store)
        # Complete stages stay reused, although only trials that are over need them.
        progress.left = searcher.left() - progress.reused
        tracking = Tracking(launch.uri, store, searcher.plan, send_patch=request.send_patch)
        # Once for the whole search: growing the plan is not a new launch.
        began = time.time()

        # The record first: MLflow is sent what the record names, and `sync` must find it there
        # after a kill.
        def changed(searcher: Searcher) -> None:
            record_launch(searcher.plan, store, request, began, searcher.pruned())
            tracking.grow(searcher.plan)
            tracking.tell(findings(searcher))

        changed(searcher)
        searcher.changed = changed
        return Searching(searcher, progress, tracking)


def launched_searcher(launch: Launch) -> Searcher:
    """Open the study of a launch's search; see `open_searcher`."""
    return open_searcher(launch.plan, launch.store, launch.request, launch.profile)


def open_searcher(plan: Plan, store: Store, request: LaunchRequest, profile: Profile) -> Searcher:
    """Open the study of a plan's search; trials that were recorded stay as they are.

    Raises:
        ValueError: its storage cannot be opened.
    """
    search = plan.sweep.search
    assert search is not None, "plans of other sweeps are run by a Runner alone"
    if request.storage is not None:
        search = replace(search, storage=with_login(store, request.storage))
    asked = known_plan(store, plan.sweep.name, plan.key) or replace(plan, trials=(), stages={})
    # The budget may have grown since the trials were recorded: the sweep is the one given.
    return Searcher(replace(asked, sweep=plan.sweep), search, store, profile)


@contextmanager
def held(store: Store, plan: str) -> Iterator[None]:
    """Let one process at a time drive a search; the lock falls with it.

    Raises:
        ValueError: another one does.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(exclusive(store.root / f".search-{plan}.lock"))
        except Busy as error:
            raise ValueError(
                f"another launch runs this search in {store.root}; "
                f"`{command('orchestration', 'status', 'SWEEP', '-w')}` follows it"
            ) from error
        yield


@dataclass(frozen=True)
class SearchRun:
    """Search that is over here, finished or interrupted.

    Attributes:
        progress: states of all stages; None where jobs ran without the launcher.
    """

    searcher: Searcher
    outcome: Outcome
    progress: Progress | None = None


def run_search(launch: Launch, console: Console) -> SearchRun:
    """Search until the budget is spent, or the user stops it.

    Raises:
        ValueError: the study's storage cannot be opened, or another launch runs the search.
    """
    store, profile = launch.store, launch.profile
    with held(store, launch.plan.key):
        searching = Searching.open(launch)
        searcher, progress = searching.searcher, searching.progress
        # Within the lock: two processes that ask one study would both tell trials that the other
        # drives.
        runner = Runner(progress, store, launch.backend, profile, searcher)
        run(runner, searching.tracking, console)
    if not progress.interrupted and (problem := keep(launch.plan, store, launch.uri)):
        console.print(f"MLflow lacks report and figure: {problem}", style="yellow", soft_wrap=True)
    found: Outcome = "failed" if progress.held is not None else outcome(searcher)
    return SearchRun(searcher, "interrupted" if progress.interrupted else found, progress)


def print_found(searcher: Searcher, uri: str, console: Console, *, as_json: bool) -> None:
    """Say what was found, and where everything is."""
    if as_json:
        print(json.dumps(search_json(searcher), allow_nan=False))
        return
    print_search(searcher, console)
    where = searcher.search.storage or searcher.journal
    console.print(f"study     optuna-dashboard {quote(shown(str(where)))}", soft_wrap=True)
    console.print(f"runs      {shown(uri)}", soft_wrap=True)


def outcome(searcher: Searcher) -> Outcome:
    """Call a search done if any trial came to a result: failures of others are part of it."""
    first = searcher.rounds[0]
    return "done" if best_trials(first.study, first.search) else "failed"
