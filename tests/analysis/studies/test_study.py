"""States, times and failures of a study, from a store that the launcher has written."""

from __future__ import annotations

import json
import sqlite3
import threading

import polars as pl
import pytest
from mlflow import MlflowClient

from analysis.charts.grammar import Mark, Series
from analysis.charts.style import WITHOUT
from analysis.figures import scaling
from analysis.figures.parts.derived import pareto_front
from analysis.store import artifacts
from analysis.store.runs import load_runs
from analysis.studies import comparing, study, trial
from gigatok import names
from tests.analysis.conftest import PARENT, QUESTION, Store

pytestmark = pytest.mark.heavy
GRAPH = {"teacher": [], "train": ["teacher"], "score": ["train"], "probe": ["score", "teacher"]}
PLAN = "0123456789abcdef"
NAME = "without semantic regularisation"
NOW = 2000.0


@pytest.fixture
def uri(empty_store: Store) -> str:
    return empty_store.uri


@pytest.fixture
def client(uri) -> MlflowClient:
    return MlflowClient(uri)


@pytest.fixture
def shown(uri, client, tmp_path) -> study.WatchedStudy:
    """Trial A: training runs, half done. Trial B: training failed. They share the teacher."""
    place = (tmp_path / "artifacts").as_uri()
    experiment = client.create_experiment("sizes", artifact_location=place)

    def run(kind: str, started: float, **tags: str) -> str:
        of = {names.TAG_KIND: kind, **{getattr(names, k): v for k, v in tags.items()}}
        return client.create_run(experiment, round(started * 1000), of).info.run_id

    sweep = run(
        names.KIND_SWEEP,
        900,
        TAG_QUESTION=QUESTION,
        TAG_PLAN=PLAN,
        TAG_SCALE="micro",
        TAG_STATE="RUNNING",
        TAG_GRAPH=json.dumps(GRAPH),
        TAG_AXES="[]",
    )
    teacher = run(names.KIND_STAGE, 1000, TAG_STATE="COMPLETE", TAG_HOST="a")
    client.set_terminated(teacher, "FINISHED", 1_040_000)
    said = {"done": 60, "total": 100, "unit": "step", "first_done": 20, "first_time": 1900.0}
    progress = json.dumps({**said, "time": 1980.0})
    runs = run(names.KIND_STAGE, 1890, TAG_STATE="RUNNING", TAG_PROGRESS=progress)
    fails = run(
        names.KIND_STAGE, 1100, TAG_STATE="FAILED", TAG_ERROR="non-finite: at step 3\nmore"
    )
    client.set_terminated(fails, "FAILED", 1_110_000)
    client.log_text(fails, "\n".join(f"line {i}" for i in range(100)), "logs/attempt-001.log")
    for name, train in (("A", runs), ("B", fails)):
        made = run(names.KIND_TRIAL, 900, TAG_TRIAL=name, TAG_TRIAL_KEY=name)
        client.set_tag(made, PARENT, sweep)
        client.log_param(made, "seed", "0")
        client.log_param(made, "tokenizer", f"S-{name}")
        keys = {"teacher": "t", "train": f"train{name}", "score": f"s{name}", "probe": f"p{name}"}
        for stage, key in keys.items():
            client.set_tag(made, names.PREFIX_STAGE_KEY + stage, key)
        client.set_tag(made, names.PREFIX_STAGE_RUN + "teacher", teacher)
        client.set_tag(made, names.PREFIX_STAGE_RUN + "train", train)
    (title,) = study.list_studies(uri)
    return study.load_study(uri, title, NOW)


def states(shown: study.WatchedStudy, name: str) -> list[tuple[str, str | None]]:
    cells = shown.cells.filter(pl.col("trial") == name)
    return list(zip(cells["state"], cells["reason"], strict=True))


def test_every_stage_has_its_state_and_a_reason(shown):
    assert shown.stages == tuple(GRAPH)
    assert states(shown, "A") == [
        ("COMPLETE", None),
        ("RUNNING", None),
        ("WAITING", "waits for train"),
        ("WAITING", "waits for score"),
    ]
    assert states(shown, "B") == [
        ("COMPLETE", None),
        ("FAILED", "non-finite: at step 3"),
        ("UPSTREAM_FAILED", "train failed"),
        ("UPSTREAM_FAILED", "score failed"),
    ]


def test_a_shared_stage_counts_once(shown):
    assert shown.counts == {
        "WAITING": 2,
        "RUNNING": 1,
        "COMPLETE": 1,
        "FAILED": 1,
        "UPSTREAM_FAILED": 2,
    }
    assert shown.progress == pytest.approx((1 + 0.6) / 7)
    assert shown.spent == pytest.approx(40 + 110 + 10)


def test_what_only_pruned_trials_need_is_pruned(shown, uri, client):
    first, second = shown.runs["run_id"].to_list()
    client.set_tag(first, names.TAG_STATE, "PRUNED")
    found = study.load_study(uri, shown.title, NOW)
    why = "the search has given this trial up"
    assert states(found, "A")[1:] == [("RUNNING", None), ("PRUNED", why), ("PRUNED", why)]
    assert found.counts["PRUNED"] == 2
    assert found.progress == pytest.approx((3 + 0.6) / 7)
    client.set_tag(second, names.PREFIX_STAGE_KEY + "score", "sA")  # which it still waits for
    shared = study.load_study(uri, shown.title, NOW)
    assert [state for state, _ in states(shared, "A")][2:] == ["WAITING", "PRUNED"]


def test_spent_is_compared_with_what_was_predicted(shown, uri, client):
    assert shown.title.predicted is None
    assert study.spent_against_predicted(shown).startswith("no stage was launched with a predict")
    teacher = shown.cells.filter(pl.col("stage") == "teacher")["stage_run"][0]
    client.set_tag(teacher, names.TAG_PREDICTED_SECONDS, "30.0")
    client.set_tag(teacher, names.TAG_ACTUAL_SECONDS, "36.0")
    client.set_tag(shown.title.run_id, names.TAG_PREDICTED_SECONDS, "500.0")
    (title,) = study.list_studies(uri)
    assert title.predicted == 500.0
    found = study.load_study(uri, title, NOW)
    said = study.spent_against_predicted(found)
    assert said == "what ran in one go (1 of 7 stages) took 1.20 times the predicted time"
    first, second, *_ = study.stage_times(found).rows(named=True)
    assert (first["predicted"], first["actual"], first["ratio"]) == (30.0, 36.0, 1.2)
    assert second["predicted"] is None


@pytest.mark.parametrize(
    ("made", "end", "left", "words"),
    [
        (NOW - 10, 70.0, 60.0, "the line"),
        (NOW - 100, 70.0, 0.0, "the line"),  # overdue, and never negative
        (NOW - 10, None, None, "the line"),
        (NOW - 600, 700.0, None, "last heard of 10 min ago"),
    ],
)
def test_the_time_left_is_what_the_launcher_says(shown, uri, client, made, end, left, words):
    said = json.dumps({"made": made, "end": end, "line": "the line"})
    client.set_tag(shown.title.run_id, names.TAG_FORECAST, said)
    (title,) = study.list_studies(uri)
    found, why = study.seconds_left(study.load_study(uri, title, NOW))
    assert found == left
    assert words in why


def test_without_an_estimate_the_time_left_is_unknown(shown):
    assert study.seconds_left(shown) == (None, "its launcher has sent no estimate")


def test_the_time_left_of_a_running_stage_goes_by_its_speed(shown):
    running = shown.cells.filter(pl.col("state") == "RUNNING")
    assert running["left"].to_list() == [pytest.approx(80.0)]  # 40 steps in 80 s, 40 to go


def test_a_silent_launcher_is_noticed(shown, uri):
    assert shown.silent is None
    later = study.load_study(uri, shown.title, 1980.0 + study.SILENT_SECONDS)
    assert later.silent == study.SILENT_SECONDS


def test_a_failure_has_the_end_of_its_log(shown, uri, tmp_path):
    (failure,) = shown.failures
    assert (failure.stage, failure.trials) == ("train", ("B",))
    tail = study.log_tail(uri, failure.stage_run, tmp_path, lines=2)
    assert tail == "line 98\nline 99"


def test_no_file_outside_the_runs_directory_is_read(shown, uri, tmp_path):
    run_id, inside = shown.failures[0].stage_run, tmp_path
    elsewhere = tmp_path / "runs"
    elsewhere.mkdir()
    with pytest.raises(artifacts.Outside, match="lies outside"):
        artifacts.read(uri, run_id, "logs/attempt-001.log", elsewhere)
    with pytest.raises(artifacts.Outside):
        artifacts.read(uri, run_id, "../../../../etc/passwd", inside)
    link = tmp_path / "artifacts" / run_id / "artifacts" / "logs" / "link"
    link.symlink_to("/etc/passwd")
    with pytest.raises(artifacts.Outside):
        artifacts.read(uri, run_id, "logs/link", inside)
    assert artifacts.read(uri, run_id, "logs/none", inside) is None


def test_table_of_states(shown):
    table = study.state_table(shown)
    assert table["train"].to_list() == ["RUNNING", "FAILED"]
    assert table["why"][1].startswith("train: non-finite: at step 3; score: train failed")
    assert study.state_pills(shown)["probe"].to_list() == [["waiting"], ["upstream failed"]]


def test_codebook_uses_and_curves_of_a_trial(shown, uri, client):
    stage_run = shown.cells.filter(pl.col("state") == "RUNNING")["stage_run"][0]
    for step, codes in ((0, 5), (1, 2), (2, 1)):
        client.log_metric(stage_run, names.CODE_USES, codes, step=step)
    for step in (1, 2):
        client.log_metric(stage_run, "train/loss", 1 / step, step=step)
    client.log_metric(stage_run, "train/loss", 0.4, timestamp=2**45, step=2)
    found = trial.load_trial(uri, shown.runs, shown.runs["run_id"][0])
    assert found.code_uses.rows() == [("0", 5), ("1", 2), ("2-3", 1)]
    assert trial.panels(found, shown.stages) == {"train": ["train/loss"]}
    assert trial.curve(found, "train", "train/loss").rows() == [(1, 1.0), (2, 0.4)]


def test_the_front_is_exact():
    def mark(x: float, y: float) -> Mark:
        return Mark(x, y, (), "run")

    places = [(1, 5), (2, 4), (2, 6), (3, 4), (4, 1), (2, 4)]
    lines = [
        Series(name, tuple(mark(x, y) for x, y in part), WITHOUT)
        for name, part in (("one", places[:3]), ("other", places[3:]))
    ]
    front = pareto_front(lines, "lower", "lower").marks
    assert [(m.x, m.y) for m in front] == [(1, 5), (2, 4), (2, 4), (4, 1)], "a tie stays"
    front = pareto_front(lines, None, "higher").marks
    assert [(m.x, m.y) for m in front] == [(1, 5), (2, 6)]


def test_the_papers_numbers_join_own_ones():
    named = {
        s.name: {m.label: (m.x, m.y) for m in s.marks} for s in _paper("params_total", "gfid")
    }
    assert named["paper Table 2 1D +reg"]["S-L"] == (533.0, 5.19)  # Table 2
    assert _paper("params_total", "gkid") == []


def _paper(x: str, y: str):
    return scaling.published_series(x, y)


def test_trials_of_a_sweep_over_each_other(uri):
    store = Store(uri)
    sizes = {"S-S": 1e6, "S-B": 2e6, "S-L": 4e6}
    parent = store.sweep("laws", PLAN, 1.0)
    for tokenizer, size in sizes.items():
        for seed, noise in ((0, 0.99), (1, 1.01)):
            scores = {"params_total": size, "ar_val_loss": noise * size**-0.5}
            store.trial("laws", parent, tokenizer, scores, seed=seed)
    runs = load_runs("laws", store.uri)
    found = scaling.scaling(runs, "params_total", "ar_val_loss", law="power", front=True)
    assert [s.name for s in found.chart.series] == [NAME, "Pareto front", f"fit of {NAME}"]
    own = found.chart.series[0]
    assert [(m.x, len(m.origins)) for m in own.marks] == [(1.0, 2), (2.0, 2), (4.0, 2)]
    assert "b = -0.5 [" in found.sentences[0]
    assert found.marks.filter(pl.col("mark") == "mean").height == 3
    table = comparing.beside({"one": runs, "two": runs})
    best = table.filter(pl.col("metric") == "AR val loss (nats/token)")["best"]
    assert best.to_list() == ["S-L", "S-L"]
    assert comparing.setting_differences({"one": runs, "two": runs}).is_empty()
    rows = runs.to_dicts()
    changed = trial.difference(rows[0], rows[-1])
    assert ("setting", "tokenizer", "S-S", "S-L") in changed.rows()


def test_a_store_that_is_being_written_is_waited_for(uri, client):
    client.create_experiment("sizes")
    writer = sqlite3.connect(uri.removeprefix("sqlite:///"), check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.0, writer.rollback).start()
    assert study.list_studies(uri) == []


@pytest.fixture
def guided(uri) -> pl.DataFrame:
    """Two tokenizers and two guidance scales, a part of gFID's protocol; seed 1 of S-S failed."""
    store = Store(uri)
    parent = store.sweep("guided", PLAN, 1.0, axes=("sampling.cfg_scale",))
    for tokenizer, size in (("S-S", 1e6), ("S-B", 2e6)):
        for scale in (1.5, 2.0):
            for seed in (0, 1):
                scores = {
                    "params_total": size,
                    "params_head": 0.0,
                    "rfid": 10.0 + seed,
                    "gfid": 20.0 + scale,
                }
                if (tokenizer, seed) == ("S-S", 1):
                    del scores["gfid"]
                store.trial(
                    "guided",
                    parent,
                    tokenizer,
                    scores,
                    seed=seed,
                    params={"sampling.cfg_scale": scale},
                    protocols={"gfid": f"CFG {scale}"},
                )
    return load_runs("guided", store.uri)


def test_what_was_measured_in_two_ways_is_two_series_and_nothing_runs_through_both(guided):
    found = scaling.scaling(guided, "params_total", "gfid", law="power", front=True)
    names_ = [s.name for s in found.chart.series]
    assert names_ == ["cfg_scale=1.5 [a]", "cfg_scale=2 [b]"]
    assert "gFID was measured in 2 ways: no fit and no front mix them." in found.notes
    assert any("[a] CFG 1.5; [b] CFG 2.0" in note for note in found.notes)


def test_both_coordinates_of_a_mark_are_of_the_same_seeds(guided):
    found = scaling.scaling(guided, "rfid", "gfid")
    marks = {m.label: m for m in found.chart.series[0].marks}
    assert (marks["S-S"].x, len(marks["S-S"].origins)) == (10.0, 1), "seed 1 has no gFID"
    assert (marks["S-B"].x, len(marks["S-B"].origins)) == (10.5, 2)


def test_neighbours_of_a_trial_differ_in_the_tokenizer_alone(guided):
    last = guided.row(-1, named=True)
    beside = trial.differing_in(guided, last["run_id"], "tokenizer", 6)
    assert [row["tokenizer"] for row in beside] == ["S-S", "S-B"]
    for row in beside:
        assert row["sampling.cfg_scale"] == last["sampling.cfg_scale"]
        assert row["seed"] == last["seed"]


def test_sizes_are_drawn_and_fitted_in_millions(uri):
    store = Store(uri)
    parent = store.sweep("laws", PLAN, 1.0)
    for tokenizer, size in (("S-S", 1e6), ("S-B", 2e6), ("S-L", 4e6)):
        scores = {"params_decoder": size, "psnr": 20 * (size / 2e6) ** 0.5}
        for seed in (0, 1):
            store.trial("laws", parent, tokenizer, scores, seed=seed)
    found = scaling.scaling(load_runs("laws", uri), "params_decoder", "psnr", law="power")
    assert found.chart.x.label == "decoder params (M)"
    assert "a = 20 [" in found.sentences[0]
    assert found.sentences[-1] == "x and y are in the units of the axes."


def test_a_kid_reads_as_what_it_is():
    row = {**dict.fromkeys(names.METRICS), "rkid": 45.3}
    assert trial.results(row).rows() == [("rKID (x1000)", "45.3", None)]
