"""The Python API of a study: what it returns, how it shows itself, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration import Study
from orchestration.backends.base import Infeasible
from orchestration.forecast.simulator import Cluster
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan
from orchestration.runs.state import Store
from tests.orchestration.tracking.tracking_helpers import Run, keys_of, plan_of


@pytest.fixture
def plan(tmp_path: Path, store: Store) -> Plan:
    """Two tokenizers, launched; the first is complete, the second has failed."""
    plan = plan_of(tmp_path, "study")
    record_launch(plan, store, LaunchRequest(sweep=str(plan.sweep.path), max_disk=5.0))
    second = keys_of(plan)[1]
    for key in plan.stages:
        if key != second:
            Run(store, plan, key).complete()
    Run(store, plan, second).fail("disk on fire")
    return plan


@pytest.fixture
def study(plan: Plan, store: Store) -> Study:
    return Study(plan.sweep.path, runs=store.root)


def test_a_plan_is_data_and_shows_itself(study: Study, plan: Plan) -> None:
    prepared = study.plan(jobs=1)
    assert prepared.plan.key == plan.key
    assert prepared.data()["plan"] == plan.key
    assert "2 trials, 3 stages" in repr(prepared)
    costs = study.costs()
    assert {row["key"] for row in costs} == plan.stages.keys()
    assert all(row["flops"] >= 0 and row["seconds"] is None for row in costs)


def test_overrides_are_texts_or_values(plan: Plan, store: Store) -> None:
    texts = Study(plan.sweep.path, runs=store.root, overrides=["tokenizer.lr=0.5"])
    values = Study(plan.sweep.path, runs=store.root, overrides={"tokenizer.lr": 0.5})
    assert texts.overrides == values.overrides
    config = values.plan().plan.trials[0].trial.config
    assert config.tokenizer.lr == 0.5


def test_what_is_wrong_is_a_value_error(study: Study, store: Store, tmp_path: Path) -> None:
    for wrong in (
        lambda: Study("nosuch", runs=store.root).plan(),
        lambda: Study("nosuch", runs=store.root).status(),
        lambda: study.plan(backend="slrum"),
        lambda: study.retry("nosuch"),
        lambda: study.cancel("nosuch"),
        lambda: study.explain("nosuch"),
        lambda: study.output("S-S", "nosuch"),
        lambda: study.output("S-B", "train_tokenizer"),
    ):
        with pytest.raises(ValueError, match=r"nosuch|slrum|FAILED"):
            wrong()


def test_a_launch_that_cannot_fit_is_refused_with_the_reason(study: Study) -> None:
    with pytest.raises(Infeasible, match=r"refused: .*disk"):
        study.run(max_disk=0.0)


def test_status_table_and_output_tell_what_became_of_stages(study: Study, plan: Plan) -> None:
    status = study.status()
    assert "2 complete, 1 failed" in repr(status)
    assert "disk on fire" in repr(status)
    assert [row["trial"] for row in study.table()] == ["S-S", "S-B"]
    assert study.table()[0]["tokenizer.decoder"] == "S"
    folder = status.stages[keys_of(plan)[0]].folder
    assert study.output("S-S", "train_tokenizer") == folder.out
    verdicts = {one.key: one.verdict for one in study.explain()}
    assert verdicts[keys_of(plan)[0]] == "reused"
    assert verdicts[keys_of(plan)[1]] == "failed"
    folder.log(1).parent.mkdir(parents=True, exist_ok=True)
    folder.log(1).write_text("said something\n")
    assert list(study.logs("S-S", "train_tokenizer").values()) == ["said something\n"]
    assert study.diff("S-S", "S-B")["train_tokenizer"]


def test_a_launch_is_continued_as_it_was_asked_for(study: Study, plan: Plan) -> None:
    plan.sweep.path.unlink()
    by_name = Study("study", runs=study.store.root)
    assert by_name.plan_resume().progress.finished, "what failed is left alone"
    again = by_name.plan_resume(failed=True, jobs=1)
    assert [key for key in again.plan.stages if again.progress.will_run(key)] == [keys_of(plan)[1]]
    assert (again.request.max_disk, again.request.jobs) == (5.0, 1)
    assert not by_name.plan_retry("S-B").progress.finished


def test_what_is_cancelled_is_counted(study: Study) -> None:
    found = study.cancel()
    assert (found.cancelled, found.running, found.ended) == (0, (), 3)
    assert found.wait(0.0) == []


def test_a_cluster_is_simulated_on_paper(study: Study) -> None:
    found = study.simulate(Cluster(4), teraflops=1.0)
    assert {outcome.failed for outcome in found.outcomes.values()} == {0}
