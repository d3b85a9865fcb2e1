"""Trials of a search stay as they were recorded, whatever newer code would make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import make_plan
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from orchestration.search import asking
from orchestration.search.launch import open_searcher
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.search.search_helpers import BLOCK, HEAD, write

REQUEST = LaunchRequest(sweep="searched.yaml")


def test_a_trial_that_was_asked_for_keeps_its_config_and_keys(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    sweep = load_sweep(write(tmp_path, BLOCK, HEAD))
    plan = make_plan(sweep, expand(sweep))
    searcher = open_searcher(plan, store, REQUEST, Profile())
    assert searcher.plan.trials == ()
    found = searcher.rounds[0]
    for _ in range(2):
        searcher._take_up(found, asking.ask(found.search, found.study))
    searcher._plan_trials()
    assert searcher.plan.key == plan.key
    first, second = searcher.plan.trials
    # As if the code that recorded the first trial had had another default.
    generator = first.trial.config.generator.model_copy(update={"weight_decay": 0.125})
    config = first.trial.config.model_copy(update={"generator": generator})
    older = replace(first, trial=replace(first.trial, config=config), key="0" * 16)
    stages = {key: searcher.plan.stages[key] for key in older.stages.values()}
    record_launch(replace(searcher.plan, trials=(older,), stages=stages), store, REQUEST)

    again = open_searcher(plan, store, REQUEST, Profile())
    assert [trial.trial.name for trial in again.plan.trials] == [
        first.trial.name,
        second.trial.name,
    ]
    assert again.plan.trials[0].trial.config.generator.weight_decay == 0.125
    assert again.plan.trials[0].key == "0" * 16
    assert again.plan.trials[1] == second
    assert again.plan.stages.keys() == searcher.plan.stages.keys()
