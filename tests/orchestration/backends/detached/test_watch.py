"""Following a plan by its folders alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestration.backends.detached.watch import Watcher
from orchestration.execution.progress import survey
from orchestration.runs.state import Store
from tests.orchestration.tracking.tracking_helpers import Run, keys_of, plan_of, wait_for

STAGES = "[extract_codes]"


@pytest.mark.heavy
def test_it_ends_with_the_last_stage_and_tells_every_change(tmp_path: Path, store: Store) -> None:
    plan = plan_of(tmp_path, "study")
    progress = survey(plan, store)
    seen: set[str] = set()
    watcher = Watcher(progress, lambda: True)
    thread = threading.Thread(target=watcher.run, args=(seen.update,))
    thread.start()
    for key in plan.stages:
        run = Run(store, plan, key)
        progress.folders[key] = run.folder
        wait_for(lambda key=key: progress.states[key] == "RUNNING")
        run.complete()
    thread.join(30)
    assert not thread.is_alive()
    assert progress.ran == set(plan.stages) == seen
    assert not watcher.goes_on


@pytest.mark.heavy
def test_a_failure_ends_it_only_when_nothing_follows(tmp_path: Path, store: Store) -> None:
    plan = plan_of(tmp_path, "study", decoders="[S]", stages=STAGES)
    progress = survey(plan, store)
    *before, below = plan.stages
    for key in before[:-1]:
        Run(store, plan, key).complete()
    Run(store, plan, before[-1]).fail("no luck")
    progress = survey(plan, store)
    Watcher(progress, lambda: True).run(lambda keys: None)
    assert progress.states[before[-1]] == "FAILED"
    assert progress.states[below] == "UPSTREAM_FAILED"
    assert progress.failures[before[-1]].message == "no luck"


def test_an_interrupt_leaves_the_jobs_to_the_cluster(tmp_path: Path, store: Store) -> None:
    plan = plan_of(tmp_path, "study")
    watcher = Watcher(survey(plan, store), lambda: True)
    threading.Timer(0.5, watcher.interrupt).start()
    progress = watcher.run(lambda keys: None)
    assert progress.interrupted
    assert watcher.goes_on
    assert [progress.states[key] for key in keys_of(plan)] == ["WAITING", "WAITING"]
