"""The record of a plan: complete, compact, checked; and the plan that is built from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.execution.progress import refuse_other_versions, survey
from orchestration.launching.history import all_launches, known_plan, newest_launch
from orchestration.launching.launched import (
    LaunchedPlan,
    LaunchRequest,
    as_launched,
    parse_launch,
    record_launch,
    restored,
)
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.records import UnreadableRecord
from orchestration.runs.state import Store
from orchestration.runs.studies import study_folder
from orchestration.sweep.definition import SWEEPS_DIR, expand, load_sweep
from orchestration.sweep.search.recorded import read_recorded, scale_with_defaults
from orchestration.sweep.settings.keys import trial_keys

REQUEST = LaunchRequest(sweep="study.yaml")
SWEEP = """question: Does a record hold everything?
paper: Table 1
scale: smoke
axes: {tokenizer.decoder: [S, B], tokenizer.encoder: [S, {width: 64, layers: 2, heads: 2}]}
zip: [{generator.lr: [1e-3, 2e-3], generator.dropout: [0, 0.1]}]
exclude: [{tokenizer.decoder: B, generator.lr: 2e-3}]
solve:
  tokenizer.steps: {make: flops.train, equal: 1e10, within: 0.5, between: [1, 10_000]}
derive: {share: params.decoder / params.tokenizer}
where: [share > 0.1]
seeds: [0, 1]
claims: {rate: ar_val_loss at generator.lr=2e-3 is lower than at 1e-3 by at least 0.01}
"""
SEARCH = """question: Which rate?
scale: smoke
set: {tokenizer.decoder: S, codes.flip: false}
stages: [train_generator]
search:
  space: {generator.lr: {low: 1e-4, high: 1e-1, log: true}, tokenizer.encoder: [S, B]}
  objectives: [ar_val_loss]
  budget: {trials: 6}
"""


def planned(folder: Path, text: str, name: str = "study") -> Plan:
    file = folder / f"{name}.yaml"
    file.write_text(text)
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def record(store: Store, plan: Plan) -> Path:
    record_launch(plan, store, REQUEST)
    return study_folder(store, plan.sweep.name) / f"{plan.key}.json"


def through_json(launched: LaunchedPlan) -> LaunchedPlan:
    return LaunchedPlan.model_validate_json(launched.model_dump_json())


def test_a_plan_comes_back_whole(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, SWEEP), Store(tmp_path / "runs")
    again = restored(through_json(as_launched(plan, REQUEST)), store)
    assert again.stages == plan.stages
    assert (again.key, again.excluded, again.dropped) == (plan.key, plan.excluded, plan.dropped)
    for ours, theirs in zip(plan.trials, again.trials, strict=True):
        assert (ours.key, ours.stages) == (theirs.key, theirs.stages)
        assert replace(ours.trial, solved=()) == replace(theirs.trial, solved=())
        assert [s.deviation for s in ours.trial.solved] == [
            s.deviation for s in theirs.trial.solved
        ]
    ours, theirs = plan.sweep, again.sweep
    for name in ("question", "paper", "source", "varied", "axes", "zip", "seeds", "stages"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS_DIR.glob("*.yaml")))
def test_every_shipped_sweep_comes_back_whole(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(name, "smoke")
    plan = make_plan(sweep, expand(sweep))
    again = restored(through_json(as_launched(plan, REQUEST)), Store(tmp_path))
    assert again.stages == plan.stages
    assert [t.trial.config for t in again.trials] == [t.trial.config for t in plan.trials]
    assert again.sweep.varied == plan.sweep.varied


def test_sections_that_trials_share_are_stored_once(tmp_path: Path) -> None:
    rates = ", ".join(f"{1e-4 * n:.4f}" for n in range(1, 101))
    text = "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
    plan = planned(tmp_path, f"{text}axes: {{generator.lr: [{rates}]}}\n")
    values = as_launched(plan, REQUEST).values()
    generators = [
        one for one in values.sections if isinstance(one, dict) and "ffn_multiple_of" in one
    ]
    assert len(values.assignments) == 100
    assert len(generators) == 100
    assert len(values.sections) < 130


def test_a_record_that_was_changed_or_is_of_another_version_is_refused(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, SWEEP), Store(tmp_path / "runs")
    file = record(store, plan)
    whole = file.read_text()
    assert parse_launch(file) is not None
    for text, said in (
        (whole.replace('dropout\\":0.1', 'dropout\\":0.2'), "has changed since it was written"),
        (whole.replace('"format":2', '"format":1'), "another version of this program wrote it"),
        ('{"sweep":"study"}', "another version of this program wrote it"),
        ("", "it is damaged"),
    ):
        assert text != whole
        file.write_text(text)
        with pytest.raises(UnreadableRecord, match=said):
            parse_launch(file)
        assert not list(all_launches(store, "study"))
        with pytest.raises(ValueError, match="launch the sweep again to write it"):
            newest_launch(store, "study")


def test_a_stage_of_an_older_version_is_reused_and_never_run(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, SWEEP), Store(tmp_path / "runs")
    key, stage = next(iter(plan.stages.items()))
    older = replace(plan, stages={**plan.stages, key: stage._replace(version=0)})
    progress = survey(restored(through_json(as_launched(older, REQUEST)), store), store)
    with pytest.raises(ValueError, match="was launched with version 0 of the stage"):
        refuse_other_versions(progress)
    progress.set(key, "COMPLETE")
    refuse_other_versions(progress)


def test_a_search_means_the_same_without_its_files(tmp_path: Path) -> None:
    plan = planned(tmp_path, SEARCH)
    launched = through_json(as_launched(plan, REQUEST))
    plan.sweep.path.unlink()
    before, after = plan.sweep.search, restored(launched, Store(tmp_path)).sweep.search
    assert before is not None
    assert after is not None
    assert after.identity == before.identity
    for suggestion in (
        {"generator.lr": 1e-3, "tokenizer.encoder": "S"},
        {"generator.lr": 0.1, "tokenizer.encoder": "B"},
    ):
        assert after.trial("000", suggestion) == before.trial("000", suggestion)


def test_a_search_keeps_the_defaults_of_the_code_that_launched_it(tmp_path: Path) -> None:
    search = planned(tmp_path, SEARCH).sweep.search
    assert search is not None
    scale = scale_with_defaults(search)
    given = {key for key in trial_keys() if key in scale["trial"]}
    optional = {name for name, key in trial_keys().items() if not key.field.is_required()}
    assert given >= optional - search.scale.trial.keys()
    # As if the default had been another one when the search was launched.
    scale["trial"]["generator.weight_decay"] = 0.125
    again = read_recorded(search.written, "smoke", scale, [])
    trial = again.trial("000", {"generator.lr": 1e-3, "tokenizer.encoder": "S"})
    assert trial.config.generator.weight_decay == 0.125


def test_a_plan_is_found_by_its_key(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, SWEEP), Store(tmp_path / "runs")
    assert known_plan(store, "study", plan.key) is None
    file = record(store, plan)
    known = known_plan(store, "study", plan.key)
    assert known is not None
    assert known.stages == plan.stages
    file.write_text("damaged")
    assert known_plan(store, "study", plan.key) is None
