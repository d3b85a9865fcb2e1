"""A sweep in MLflow: what is shown of it, and what trouble does to it."""

import json
import math
import re
import sys
import threading
from collections import Counter

import pytest

from gigatok import names
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.ledger import Owner, parse_uri
from orchestration.tracking.shipping import Tracking, default_uri
from tests.orchestration.tracking.tracking_helpers import (
    Reader,
    Run,
    assert_sent_exactly,
    keys_of,
    plan_of,
    send,
    wait_for,
)

pytestmark = pytest.mark.heavy
KINDS = (names.KIND_SWEEP, names.KIND_TRIAL, names.KIND_STAGE)
LARGEST = sys.float_info.max


# URIs


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///tmp/mlruns", "sqlite:////tmp/mlruns/mlflow.db"),
        ("runs/mlruns", "sqlite:///runs/mlruns/mlflow.db"),
        ("", "sqlite:///runs/mlflow.db"),
        ("sqlite://runs/mlflow.db", "does not name a database file"),
        ("sqlite:runs/mlflow.db", "does not name a database file"),
        ("sqlite:///", "does not name a database file"),
        ("sqlite:///:memory:", "does not name a database file"),
        ("http:///path", "names no host"),
        ("postgresql://host/db", "scheme 'postgresql'"),
        ("ftp://me:geheim@host", "tracking URI 'ftp://me:***@host'"),
        ("http://me:ge/heim@host", "write / as %2F"),
        ("http://me:ge#heim@host", "write / as %2F"),
    ],
)
def test_other_uris_are_refused(uri, says, store, plan):
    with pytest.raises(ValueError, match="tracking URI") as refusal:
        Tracking(uri, store, plan)
    assert says in str(refusal.value)
    assert "heim" not in str(refusal.value)


def test_uris_name_one_ledger_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = parse_uri("sqlite:///runs/mlflow.db")
    assert relative.database == tmp_path / "runs" / "mlflow.db"
    assert relative == parse_uri(f"sqlite:///{tmp_path}/runs/mlflow.db")
    server = parse_uri("http://me:secret@host:5000/")
    assert server.uri == "http://host:5000"
    assert set(server.login.values()) == {"me", "secret"}
    assert "secret" not in repr(server)
    assert "secret" not in server.shown + server.name
    assert server.name == parse_uri("http://host:5000").name != parse_uri("http://host:5001").name


# What MLflow shows


def test_fresh_database_gets_schema_and_runs(tmp_path, plan):
    store = Store(tmp_path / "new" / "runs")
    tracking = Tracking(default_uri(store), store, plan, command="launch study")
    assert tracking.prepare(60), tracking.error
    reader = Reader(default_uri(store))
    (sweep,) = reader.runs(names.KIND_SWEEP)
    trials = reader.runs(names.KIND_TRIAL)
    assert {t.data.tags[names.TAG_TRIAL] for t in trials} == {t.trial.name for t in plan.trials}
    assert {t.data.tags["mlflow.parentRunId"] for t in trials} == {sweep.info.run_id}
    assert reader.runs(names.KIND_STAGE) == []
    assert sweep.data.tags[names.TAG_LAUNCH_COMMAND] == "launch study"
    assert json.loads(sweep.data.tags[names.TAG_AXES]) == ["tokenizer.decoder"]
    assert b"larger decoder" in reader.text(sweep, "sweep.yaml")
    assert not tracking.finish(60)
    assert not (tmp_path / "new" / "mlruns").exists()
    statuses = {r.info.status for r in reader.runs(names.KIND_TRIAL) + reader.runs("sweep")}
    assert statuses == {"KILLED"}


def test_params_of_a_trial_and_of_its_sweep_are_the_flat_identity(store, plan):
    send(store, plan)
    reader = Reader(default_uri(store))
    trial = reader.one(names.KIND_TRIAL, TAG_TRIAL=plan.trials[1].trial.name)
    shared = reader.one(names.KIND_SWEEP).data.params
    assert trial.data.params.keys().isdisjoint(shared)
    # The axis with its parts, seed, name, and what follows from them.
    assert len(trial.data.params) < 12
    params = trial.data.params | shared
    config = plan.trials[1].trial.config
    assert params[names.PARAM_TOKENIZER] == config.tokenizer.name == "S-B"
    assert (params["tokenizer.encoder"], params["tokenizer.decoder"]) == ("S", "B")
    assert params["tokenizer.decoder.width"] == str(config.tokenizer.decoder.width)
    assert params[names.PARAM_SEED] == "0"
    assert json.loads(params["tokenizer.cnn.multipliers"]) == list(
        config.tokenizer.cnn.multipliers
    )
    assert json.loads(params["tokenizer.rotation_trick"]) is True
    assert float(params["tokenizer.lr"]) == config.tokenizer.lr
    assert not any("micro_batch" in key or "log_every" in key for key in params)


def test_a_complete_stage_is_all_there(store, plan):
    key = keys_of(plan)[0]
    run = Run(store, plan, key).log(range(2500), **{"train/lr": math.pi})
    run.picture("reconstructions", 10, 1).picture("reconstructions", 20, 2)
    folder = run.complete(params_total=12.0)
    send(store, plan)
    reader = Reader(default_uri(store))
    stage = reader.one(names.KIND_STAGE)
    assert_sent_exactly(reader, folder)
    assert len(reader.history(stage, "train/lr")) == 2500
    assert reader.history(stage, "params_total") == [(0, 12.0)]
    tags = stage.data.tags
    assert tags[names.TAG_STATE] == "COMPLETE"
    assert tags[names.PREFIX_PROTOCOL + "params_total"] == "closed form"
    assert (tags[names.TAG_ATTEMPTS], tags[names.TAG_HOST]) == ("1", "node7")
    assert (tags[names.TAG_GIT_SHA], tags[names.TAG_GIT_DIRTY]) == ("abc123", "true")
    assert tags["mlflow.parentRunId"] == reader.one(names.KIND_SWEEP).info.run_id
    assert stage.info.status == "FINISHED"
    assert stage.info.start_time == int(folder.attempts()[0].started * 1000)
    assert stage.info.end_time == int(folder.done().finished * 1000)
    assert reader.files(stage, "pictures/reconstructions") == [
        "pictures/reconstructions/00000010.png",
        "pictures/reconstructions/00000020.png",
    ]
    assert json.loads(reader.text(stage, "spec.json"))["key"] == key
    assert reader.text(stage, "attempts/001.patch") == b"+ a line"
    assert json.loads(reader.text(stage, "attempts/001.json"))["outcome"] == "complete"


@pytest.mark.parametrize("send_patch", [True, False])
def test_no_secret_is_sent_of_an_attempt(store, plan, send_patch):
    url = "http://me:geheim@host/x"
    facts = {"command": f"launch --tracking-uri {url}", "git_patch": f"+url = '{url}'"}
    run = Run(store, plan, keys_of(plan)[0])
    run.attempt = run.attempt.model_copy(update={"provenance": facts})
    run.fail(f"cannot reach {url}")
    send(store, plan, send_patch=send_patch)
    reader = Reader(default_uri(store))
    stage = reader.one(names.KIND_STAGE)
    files = [*reader.files(stage, "attempts"), *reader.files(stage, "logs")]
    assert ("attempts/001.patch" in files) == send_patch
    for file in files:
        text = reader.text(stage, file).decode()
        assert "me:***@host" in text, file
        assert "geheim" not in text, file
    assert stage.data.tags[names.TAG_ERROR].endswith("http://me:***@host/x")


def test_a_note_has_no_markup_of_the_user(store, tmp_path):
    file = tmp_path / "marked.yaml"
    plan_of(tmp_path, "marked")
    file.write_text(re.sub("question: .*", "question: '![](http://a/b.png)'", file.read_text()))
    sweep = load_sweep(file)
    send(store, make_plan(sweep, expand(sweep)))
    (run,) = Reader(default_uri(store)).runs(names.KIND_SWEEP, "marked")
    assert run.data.tags["mlflow.note.content"].startswith("\\!\\[\\]\\(http")


def test_a_trial_is_one_row_with_links(store, plan):
    first, second = keys_of(plan)
    run = Run(store, plan, first).picture("samples", 1, 1).picture("samples", 2, 200)
    newest = run.complete(params_total=12.0).spool / "samples-00000002.png"
    Run(store, plan, second).fail("boom")
    for planned in plan.stages.values():
        if planned.key not in (first, second):
            Run(store, plan, planned.key).complete(other=1.0)
    send(store, plan)
    reader = Reader(default_uri(store))
    good = reader.one(names.KIND_TRIAL, TAG_STATE="COMPLETE")
    bad = reader.one(names.KIND_TRIAL, TAG_STATE="FAILED")
    stage = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=first)
    assert good.data.metrics["params_total"] == 12.0
    assert good.data.tags[names.PREFIX_STAGE_RUN + "train_tokenizer"] == stage.info.run_id
    assert good.data.tags[names.PREFIX_STAGE_KEY + "train_tokenizer"] == first
    protocol = names.PREFIX_PROTOCOL + "params_total"
    assert reader.one(names.KIND_SWEEP).data.tags[protocol] == "closed form"
    assert protocol not in good.data.tags, "the sweep's run says it for all of its trials"
    assert good.data.tags[names.TAG_GIT_SHA] == "abc123"
    assert reader.text(good, "pictures/train_tokenizer/samples.png") == newest.read_bytes()
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert "params_total" not in bad.data.metrics
    assert reader.one(names.KIND_SWEEP).info.status == "FAILED"


def test_nan_and_infinity_survive(store, plan):
    key = keys_of(plan)[0]
    run = Run(store, plan, key)
    values = [math.nan, math.inf, -math.inf, 1e-310, 0.1]
    for step, value in enumerate(values):
        run.spool.metrics({"train/loss": value}, step)
    run.complete(rfid=math.nan)
    send(store, plan)
    send(store, plan)
    reader = Reader(default_uri(store))
    stage = reader.one(names.KIND_STAGE)
    history = reader.history(stage, "train/loss")
    assert [step for step, _ in history] == [0, 1, 2, 3, 4]
    assert math.isnan(history[0][1])
    assert [value for _, value in history[1:]] == [LARGEST, -LARGEST, 1e-310, 0.1]
    assert math.isnan(stage.data.metrics["rfid"])
    assert len(reader.history(stage, "rfid")) == 1


def test_failed_attempt_leaves_log_and_error_then_completes(store, plan):
    key = keys_of(plan)[0]
    Run(store, plan, key).log(range(5)).fail("shapes differ")
    send(store, plan)
    reader = Reader(default_uri(store))
    stage = reader.one(names.KIND_STAGE)
    assert stage.info.status == "FAILED"
    assert stage.data.tags[names.TAG_ERROR] == "exception: shapes differ"
    log = reader.text(stage, "logs/attempt-001.log")
    assert log.endswith(b"shapes differ")
    assert len(log) == 64 * 1024
    folder = Run(store, plan, key).log(range(3, 9)).complete()
    send(store, plan)
    stage = reader.one(names.KIND_STAGE)
    assert (stage.info.status, stage.data.tags[names.TAG_ATTEMPTS]) == ("FINISHED", "2")
    assert [step for step, _ in reader.history(stage, "train/loss")] == list(range(9))
    assert_sent_exactly(reader, folder)


def test_killed_worker_is_killed_and_resumes_in_the_same_run(store, plan):
    key = keys_of(plan)[0]
    run = Run(store, plan, key).log(range(50))
    tracking = Tracking(default_uri(store), store, plan)
    tracking.prepare(60)
    reader = Reader(default_uri(store))
    wait_for(lambda: len(reader.runs(names.KIND_STAGE)) == 1)
    assert reader.one(names.KIND_STAGE).info.status == "RUNNING"
    assert reader.one(names.KIND_SWEEP).info.status == "RUNNING"
    run.die()
    assert not tracking.finish(60)
    stage = reader.one(names.KIND_STAGE)
    assert (stage.info.status, stage.data.tags[names.TAG_STATE]) == ("KILLED", "WAITING")
    open_runs = [r for kind in ("sweep", "trial", "stage") for r in reader.runs(kind)]
    assert {r.info.status for r in open_runs} == {"KILLED"}
    # The resumed attempt repeats the steps after its checkpoint, with other times and values.
    folder = Run(store, plan, key).log(range(30, 80), **{"train/lr": 0.5}).complete()
    send(store, plan)
    stage = reader.one(names.KIND_STAGE)
    assert [step for step, _ in reader.history(stage, "train/loss")] == list(range(80))
    assert [step for step, _ in reader.history(stage, "train/lr")] == list(range(30, 80))
    assert_sent_exactly(reader, folder)


def test_stage_running_elsewhere_stays_running(store, plan):
    Run(store, plan, keys_of(plan)[0]).log(range(5))
    send(store, plan)
    reader = Reader(default_uri(store))
    assert reader.one(names.KIND_STAGE).info.status == "RUNNING"
    assert Counter(r.info.status for r in reader.runs(names.KIND_TRIAL)) == {
        "RUNNING": 1,
        "KILLED": 1,
    }


def test_queued_trials_are_scheduled(store, plan):
    tracking = Tracking(default_uri(store), store, plan)
    tracking.prepare(60)
    assert not tracking.finish(60, queued=True)
    reader = Reader(default_uri(store))
    assert {r.info.status for r in reader.runs(names.KIND_TRIAL)} == {"SCHEDULED"}


# Trouble


@pytest.mark.parametrize(
    ("queued", "cure"),
    [(False, "launch again to send them"), (True, "the sweep's controller sends them")],
)
def test_who_sends_what_was_not_sent_is_said(store, plan, queued, cure):
    Run(store, plan, keys_of(plan)[0]).log(range(3))
    nobody = Tracking("http://127.0.0.1:9", store, plan)  # the port of discard, which none serves
    assert not nobody.prepare(0.1)
    assert str(nobody.finish(0.1, queued=queued)).endswith(cure)


def test_one_bad_stage_does_not_hold_the_others(store, plan):
    """A stage whose records cannot be read is named, and its run is not left open."""
    bad, good = keys_of(plan)
    run = Run(store, plan, bad).log(range(3))
    send(store, plan)
    run.complete().done_file.write_bytes(b"\0\0")
    folder = Run(store, plan, good).log(range(3)).complete()
    tracking = Tracking(default_uri(store), store, plan)
    tracking.prepare(60)
    unsent = tracking.finish(60)
    assert not unsent or str(run.folder.path) in str(unsent)
    reader = Reader(default_uri(store))
    assert_sent_exactly(reader, folder)
    assert "RUNNING" not in {r.info.status for kind in KINDS for r in reader.runs(kind)}


def test_two_launchers_share_a_plan(store, plan):
    keys = list(plan.stages)
    runs = [Run(store, plan, key).log(range(3000)) for key in keys]
    pair = [Tracking(default_uri(store), store, plan) for _ in range(2)]
    threads = [threading.Thread(target=tracking.prepare, args=(60,)) for tracking in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folders = [run.log(range(3000, 4000)).complete() for run in runs]
    for tracking in pair:
        tracking.notify(keys)
    assert [bool(tracking.finish(60)) for tracking in pair] == [False, False]
    reader = Reader(default_uri(store))
    assert len(reader.runs(names.KIND_SWEEP)) == 1
    assert len(reader.runs(names.KIND_TRIAL)) == 2
    for folder in folders:
        assert_sent_exactly(reader, folder)


def test_owner_on_another_host_is_not_dead():
    me = Owner.me()
    assert not me.is_dead()
    assert me.model_copy(update={"pid_started": 1.0}).is_dead()
    # In another container of the same host name the same number means another process.
    elsewhere = me.model_copy(update={"pid_started": 1.0, "machine": "elsewhere"})
    assert not elsewhere.is_dead()
    assert not elsewhere.is_here()


def test_progress_of_a_running_stage_and_the_graph_are_recorded(store, tmp_path):
    plan = plan_of(tmp_path, "study", stages="[evaluate_reconstruction]")
    (key, _) = keys_of(plan)
    run = Run(store, plan, key)
    reported = {"done": 3, "total": 12, "unit": "step", "first_done": 0, "first_time": 5.0}
    run.holder.renew(reported)
    tracking = Tracking(default_uri(store), store, plan)
    assert tracking.prepare(60), tracking.error
    reader = Reader(default_uri(store))

    def progress():
        return reader.one(names.KIND_STAGE).data.tags.get(names.TAG_PROGRESS)

    wait_for(lambda: reader.runs(names.KIND_STAGE) and progress())
    heartbeat = run.folder.lease().heartbeat
    assert json.loads(progress()) == {**reported, "time": heartbeat}
    sweep = reader.one(names.KIND_SWEEP)
    graph = json.loads(sweep.data.tags[names.TAG_GRAPH])
    assert list(graph)[-1] == "evaluate_reconstruction"
    assert "train_tokenizer" in graph["evaluate_reconstruction"]
    run.complete()
    assert not tracking.finish(60)


def test_a_refused_launch_is_a_tag_of_the_sweep_run_until_the_next(store, plan):
    tracking, reader = Tracking(default_uri(store), store, plan), Reader(default_uri(store))
    refused = {names.TAG_REFUSED: "--max-disk 1 GiB: 2 GiB"}
    assert tracking.tag_sweep(refused) is None, "no run, nothing to tag"
    send(store, plan)
    assert tracking.tag_sweep(refused) is None
    tags = reader.one(names.KIND_SWEEP).data.tags
    assert tags[names.TAG_REFUSED] == "--max-disk 1 GiB: 2 GiB"
    send(store, plan)
    assert reader.one(names.KIND_SWEEP).data.tags[names.TAG_REFUSED] == ""
