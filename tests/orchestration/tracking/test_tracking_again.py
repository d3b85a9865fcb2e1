"""Launches of a sweep that MLflow knows already: what they add, and what needs no sending."""

import shutil
import subprocess
import sys
import textwrap
import time

import pytest

from gigatok import names
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.shipping import Tracking, default_uri
from tests.orchestration.tracking.tracking_helpers import (
    ROOT,
    Reader,
    Run,
    assert_sent_exactly,
    keys_of,
    plan_of,
    send,
    wait_for,
)

pytestmark = pytest.mark.heavy


def test_relaunch_reuses_all_runs(store, plan):
    folder = Run(store, plan, keys_of(plan)[0]).log(range(10)).complete()
    reader = Reader(default_uri(store))
    seen = []
    for _ in range(3):
        send(store, plan)
        kinds = (names.KIND_SWEEP, names.KIND_TRIAL, names.KIND_STAGE)
        seen.append({run.info.run_id for kind in kinds for run in reader.runs(kind)})
    assert len(seen[0]) == 4
    assert seen[0] == seen[1] == seen[2]
    assert_sent_exactly(reader, folder)


def test_shared_stage_has_one_run_below_the_first_sweep(store, tmp_path, plan):
    key = keys_of(plan)[0]
    Run(store, plan, key).log(range(10)).complete()
    send(store, plan)
    second = plan_of(tmp_path, "other", decoders="[S]")
    assert key in second.stages
    send(store, second)
    reader = Reader(default_uri(store))
    stage = reader.one(names.KIND_STAGE)
    assert stage.data.tags[names.TAG_SWEEP] == "study"
    assert reader.runs(names.KIND_STAGE, "other") == []
    (trial,) = reader.runs(names.KIND_TRIAL, "other")
    assert trial.data.tags[names.PREFIX_STAGE_RUN + "train_tokenizer"] == stage.info.run_id
    assert trial.data.metrics["params_total"] == 12.0


def test_equal_trials_keep_a_row_each(store, tmp_path):
    file = plan_of(tmp_path, "study", decoders="[S]").sweep.path
    # No requested stage reads the generator, so both trials have the same stages and key.
    file.write_text(file.read_text().replace("set:", "  generator.lr: [1, 2]\nset:"))
    sweep = load_sweep(file)
    plan = make_plan(sweep, expand(sweep))
    assert len(plan.trials) == 2
    assert len({trial.key for trial in plan.trials}) == 1
    send(store, plan)
    send(store, plan)
    trials = Reader(default_uri(store)).runs(names.KIND_TRIAL)
    assert sorted(t.data.params["generator.lr"] for t in trials) == ["1.0", "2.0"]


def test_runs_deleted_in_the_ui_are_made_anew(store, plan):
    folder = Run(store, plan, keys_of(plan)[0]).log(range(1500)).picture("a", 1).complete()
    send(store, plan)
    reader = Reader(default_uri(store))
    old = [r for kind in ("sweep", "trial", "stage") for r in reader.runs(kind)]
    for run in old:
        reader.client.delete_run(run.info.run_id)
    assert not Tracking(default_uri(store), store, plan).is_current()
    send(store, plan)
    new = [r for kind in ("sweep", "trial", "stage") for r in reader.runs(kind)]
    assert len(new) == len(old)
    assert {r.info.run_id for r in new}.isdisjoint(r.info.run_id for r in old)
    assert_sent_exactly(reader, folder)
    assert reader.files(reader.one(names.KIND_STAGE), "pictures/a") == ["pictures/a/00000001.png"]


def test_sweep_and_stage_deleted_while_it_runs(store, plan):
    run = Run(store, plan, keys_of(plan)[0]).log(range(50))
    tracking = Tracking(default_uri(store), store, plan)
    tracking.prepare(60)
    reader = Reader(default_uri(store))
    wait_for(lambda: reader.runs(names.KIND_STAGE))
    for kind in (names.KIND_SWEEP, names.KIND_STAGE):
        reader.client.delete_run(reader.one(kind).info.run_id)
    folder = run.log(range(50, 100)).complete()
    assert not tracking.finish(60)
    assert_sent_exactly(reader, folder)
    sweep = reader.one(names.KIND_SWEEP).info.run_id
    assert {t.data.tags["mlflow.parentRunId"] for t in reader.runs("trial")} == {sweep}


def test_experiment_deleted_in_the_ui_comes_back(store, plan):
    send(store, plan)
    reader = Reader(default_uri(store))
    experiment = reader.client.get_experiment_by_name("study").experiment_id
    reader.client.delete_experiment(experiment)
    send(store, plan)
    assert len(reader.runs(names.KIND_TRIAL)) == 2


def test_stage_folder_made_anew_gets_a_new_run(store, plan):
    key = keys_of(plan)[0]
    folder = Run(store, plan, key).log(range(100)).complete()
    send(store, plan)
    old = Reader(default_uri(store)).one(names.KIND_STAGE).info.run_id
    shutil.rmtree(folder.path)
    Run(store, plan, key).log(range(100)).complete(params_total=13.0)
    send(store, plan)
    reader = Reader(default_uri(store))
    stage = reader.one(names.KIND_STAGE)
    new = stage.info.run_id
    assert new != old
    assert len(reader.history(stage, "train/loss")) == 100
    assert reader.client.get_run(old).info.lifecycle_stage == "deleted"
    links = {
        t.data.tags.get(names.PREFIX_STAGE_RUN + "train_tokenizer") for t in reader.runs("trial")
    }
    assert links == {new, None}


# Nothing to do


def test_current_only_when_all_is_sent(store, plan):
    def current() -> bool:
        return Tracking(default_uri(store), store, plan).is_current()

    assert not current()
    for key in plan.stages:
        Run(store, plan, key).log(range(5)).complete()
    assert not current()
    send(store, plan)
    assert current()
    spool = next(store.index("train_tokenizer")[keys_of(plan)[0]].spool.glob("*.jsonl"))
    with spool.open("a") as file:
        file.write('{"t": 1, "s": 99')
    assert current(), "half a line is nothing to send"
    with spool.open("a") as file:
        file.write(', "m": {"train/loss": 3.0}}\n')
    assert not current()
    send(store, plan)
    assert current()
    reader = Reader(default_uri(store))
    reader.client.delete_run(reader.runs(names.KIND_TRIAL)[0].info.run_id)
    assert not current()


def test_stages_are_known_as_sent_without_their_records(store, plan):
    def current() -> bool:
        return Tracking(default_uri(store), store, plan).is_current()

    folders = [Run(store, plan, key).log(range(5)).complete() for key in plan.stages]
    send(store, plan)
    (ledgers,) = store.tracking.glob("*/stages")
    ledgers.rename(ledgers.with_name("aside"))
    assert current(), "the plan's own ledger knows the marks of its stages"
    folders[0].done_file.write_text(folders[0].done_file.read_text() + "\n")
    assert not current(), "another DONE, and no ledger that says whether it was sent"
    ledgers.with_name("aside").rename(ledgers)
    send(store, plan)
    assert current()


def test_current_plan_needs_no_mlflow(store, plan, tmp_path):
    for key in plan.stages:
        Run(store, plan, key).complete()
    send(store, plan)
    code = f"""
    import sys
    from pathlib import Path
    from orchestration.plan.graph import make_plan
    from orchestration.runs.state import Store
    from orchestration.sweep.definition import expand, load_sweep
    from orchestration.tracking.shipping import Tracking, default_uri
    store, sweep = Store(Path({str(store.root)!r})), load_sweep({str(tmp_path / "study.yaml")!r})
    tracking = Tracking(default_uri(store), store, make_plan(sweep, expand(sweep)))
    assert tracking.is_current()
    assert not {{"mlflow", "sqlalchemy", "torch"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT)


def test_notes_are_cheap(store, plan):
    tracking = Tracking(default_uri(store), store, plan)
    tracking.prepare(60)
    started = time.thread_time()  # of this thread alone, whatever else the machine does
    for _ in range(1000):
        tracking.notify(plan.stages)
        assert tracking.note() == ""
    assert time.thread_time() - started < 0.5
    assert not tracking.finish(60)
