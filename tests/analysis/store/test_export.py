"""One table of everything in a store: stages joined, units, what is kept between reads."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.entities import RunTag
from polars.testing import assert_frame_equal
from pyarrow import parquet
from typer.testing import CliRunner

import analysis.store.runs as runs_module
from analysis import load_runs, missing
from analysis.__main__ import app
from analysis.charts.records import with_ending
from analysis.store import cache, databases
from analysis.store.databases import Database
from analysis.store.export import to_pandas, units
from analysis.store.requests import RequestError
from analysis.store.runs import params_of
from analysis.store.servers import ClientStore
from gigatok import names

pytestmark = pytest.mark.heavy


class Writer:
    """Writes runs as the launcher does, stages shared by their key."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.uri)
        self.stages: dict[str, str] = {}

    def sweep(self, name: str, plan: str) -> str:
        self.experiment = self.client.create_experiment(name)
        tags = {
            names.TAG_KIND: names.KIND_SWEEP,
            names.TAG_PLAN: plan,
            names.TAG_SCALE: "smoke",
            names.TAG_AXES: json.dumps(["tokenizer.lr"]),
            names.TAG_LAUNCHED: "5.0",
        }
        return self._run(tags)

    def stage(self, key: str, state: str = "COMPLETE", seconds: int = 7, error: str = "") -> str:
        if key not in self.stages:
            tags = {names.TAG_KIND: names.KIND_STAGE, names.TAG_STATE: state}
            tags |= {names.TAG_GIT_DIRTY: "true" if key == "dirty" else "false"}
            tags |= {names.TAG_ERROR: error} if error else {}
            self.stages[key] = run = self._run(tags)
            self.client.set_terminated(run, "FINISHED", 1000 + seconds * 1000)
        return self.stages[key]

    def trial(
        self,
        parent: str,
        key: str,
        metrics: dict[str, float],
        stages: dict[str, str],
        state: str = "COMPLETE",
        **params: Any,
    ) -> str:
        tags = {
            names.TAG_KIND: names.KIND_TRIAL,
            names.TAG_TRIAL: f"trial {key}",
            names.TAG_TRIAL_KEY: key,
            names.TAG_STATE: state,
            "mlflow.parentRunId": parent,
            **{names.PREFIX_STAGE_RUN + name: self.stage(run) for name, run in stages.items()},
            **{names.PREFIX_STAGE_KEY + name: run for name, run in stages.items()},
        }
        run = self._run(tags)
        for name, value in {"tokenizer": "S-S", "seed": "0", **params}.items():
            self.client.log_param(run, name, value)
        for name, value in metrics.items():
            self.client.log_metric(run, name, value, timestamp=10, step=0)
        return run

    def _run(self, tags: dict[str, str]) -> str:
        run: str = self.client.create_run(self.experiment, start_time=1000).info.run_id
        self.client.log_batch(run, tags=[RunTag(k, v) for k, v in tags.items()])
        return run


def write_shared(writer: Writer) -> None:
    """Two sweeps that share a tokenizer; the second is half finished and one stage failed."""
    first = writer.sweep("first", "aaaa")
    stages = {"train_tokenizer": "tokenizer", "extract_codes": "codes"}
    scores = {"psnr": 20.0, "gfid": math.inf, "gkid": -math.inf, "lpips": math.nan}
    writer.trial(first, "one", {**scores, "val/loss": 3.0}, stages, lr="1e-3")
    second = writer.sweep("second", "bbbb")
    writer.stage("broken", "FAILED", error="exception: no space\nTraceback")
    writer.trial(second, "one", {"psnr": 20.0, "gfid": 9.0}, stages, lr="1e-3")
    broken = {"train_tokenizer": "tokenizer", "extract_codes": "broken"}
    writer.trial(second, "two", {"psnr": 21.0}, broken, "FAILED", lr="1e-4")
    writer.trial(second, "three", {}, {"train_tokenizer": "dirty"}, "RUNNING", lr="1e-4")
    writer.trial(second, "four", {}, {}, "WAITING", lr="1e-4")
    third = writer.sweep("unstarted", "cccc")
    writer.trial(third, "one", {"psnr": 30.0}, {})


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """Made once: MLflow takes long to make a database."""
    writer = Writer(tmp_path_factory.mktemp("shared"))
    write_shared(writer)
    return writer


@pytest.fixture
def shared(written: Writer, tmp_path: Path) -> Writer:
    """A copy that a test may change."""
    copy = tmp_path / "mlflow.db"
    shutil.copy(written.uri.removeprefix("sqlite:///"), copy)
    writer = Writer.__new__(Writer)
    writer.uri, writer.stages = f"sqlite:///{copy}", written.stages
    writer.client = MlflowClient(writer.uri)
    return writer


READERS: dict[str, Callable[[str], Any]] = {
    "direct": runs_module.open_store,
    "sqlalchemy": Database,
    "mlflow": ClientStore,
}


@pytest.mark.parametrize("reader", READERS)
def test_sweeps_that_share_stages(
    shared: Writer, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "open_store", READERS[reader])
    table = load_runs(None, shared.uri, plan="all")
    assert table.select("sweep", "trial_key", "state").rows() == [
        ("first", "one", "COMPLETE"),
        ("second", "four", "WAITING"),
        ("second", "one", "COMPLETE"),
        ("second", "three", "RUNNING"),
        ("second", "two", "FAILED"),
        ("unstarted", "one", "COMPLETE"),
    ]
    table = table.head(5)
    tokenizers = table["stage_run.train_tokenizer"]
    assert tokenizers[0] == tokenizers[2] == tokenizers[4] == shared.stages["tokenizer"]
    assert table["stage_seconds.train_tokenizer"].to_list() == [7.0, None, 7.0, 7.0, 7.0]
    assert table["git_dirty"].to_list() == [False, None, False, True, False]
    assert table["error"].to_list()[-1] == "extract_codes: exception: no space"
    assert table["error"].null_count() == 4
    assert table["lr"].to_list() == [1e-3, 1e-4, 1e-3, 1e-4, 1e-4]
    row = table.row(0, named=True)
    assert (row["gfid"], row["gkid"]) == (math.inf, -math.inf)
    assert math.isnan(row["lpips"])
    assert row["metric.val/loss"] == 3.0
    assert "metric.val/loss" not in params_of(table)
    absent = {(r["trial"], r["metric"]): r["found"] for r in missing(table).iter_rows(named=True)}
    assert absent["trial two", "gfid"] == "null"
    assert absent["trial four", "psnr"] == "null"
    assert ("trial one", "psnr") not in absent


def test_every_reader_gives_the_same_table(
    shared: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_runs(None, shared.uri, plan="all")
    for reader in READERS.values():
        monkeypatch.setattr(runs_module, "open_store", reader)
        for share in (0.0, math.inf):
            monkeypatch.setattr(databases, "SCAN_FROM", share)
            assert_frame_equal(load_runs(None, shared.uri, plan="all"), first)
            assert load_runs("second", shared.uri).height == 4


def test_equal_keys_with_other_settings_keep_their_results(shared: Writer) -> None:
    """Plans launched with other networks may share a key, but not the row."""
    shared.experiment = "0"
    parent = shared.sweep("twins", "dddd")
    for lr, psnr in (("1e-3", 1.0), ("1e-4", 2.0), ("1e-5", 3.0)):
        more = {"ssim": 0.5} if psnr == 2.0 else {}
        shared.trial(parent, "twin", {"psnr": psnr, **more}, {}, lr=lr)
    shared.trial(parent, "twin", {"psnr": 9.0}, {}, lr="1e-5")
    found = load_runs("twins", shared.uri).select("lr", "psnr", "ssim")
    rows = {row[0]: row[1:] for row in found.rows()}
    assert found.height == 3
    assert rows.keys() == {1e-3, 1e-4, 1e-5}
    assert (rows[1e-3], rows[1e-4]) == ((1.0, None), (2.0, 0.5))


def test_a_store_fills_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run has a parent at first, and none has a metric when two launches share a trial."""
    writer = Writer(tmp_path)
    parent = writer.sweep("new", "aaaa")
    for share in (0.0, math.inf):
        monkeypatch.setattr(databases, "SCAN_FROM", share)
        with pytest.raises(RequestError, match="has no trial yet"):
            load_runs("new", writer.uri)
    for _ in range(2):
        writer.trial(parent, "one", {}, {}, "WAITING")
    best = writer.trial(parent, "one", {"psnr": math.nan}, {}, "WAITING")
    for share in (0.0, math.inf):
        monkeypatch.setattr(databases, "SCAN_FROM", share)
        found = load_runs("new", writer.uri)
        assert found["run_id"].to_list() == [best]
        assert found["psnr"].is_nan().all()
    writer.client.delete_run(best)
    assert load_runs("new", writer.uri).height == 1


def test_the_value_written_last_wins(shared: Writer) -> None:
    run = load_runs("unstarted", shared.uri)["run_id"][0]
    shared.client.log_metric(run, "psnr", 20.0, timestamp=11, step=0)
    assert load_runs("unstarted", shared.uri)["psnr"].to_list() == [20.0]


def test_a_stage_run_deleted_in_the_ui_leaves_its_trial(shared: Writer) -> None:
    shared.client.delete_run(shared.stages["broken"])
    table = load_runs("second", shared.uri)
    row = table.filter(pl.col("trial_key") == "two").row(0, named=True)
    assert (row["state"], row["error"]) == ("FAILED", None)
    assert row["stage_seconds.extract_codes"] is None
    assert row["stage_run.extract_codes"] == shared.stages["broken"]


class TestKept:
    """A table is read again when, and only when, the store has changed."""

    @pytest.fixture(autouse=True)
    def keep_everything(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(cache, "ROWS_WORTH_KEEPING", 1)

    def load(self, sweep: str, uri: str) -> pl.DataFrame:
        """Load a table, and wait until it is kept."""
        table = load_runs(sweep, uri)
        for thread in threading.enumerate():
            if thread.name == cache.WRITER:
                thread.join()
        return table

    def test_nothing_is_read_twice(self, shared: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.load("second", shared.uri)

        def refuse(*_: object) -> None:
            raise AssertionError("read again")

        monkeypatch.setattr(runs_module, "_read", refuse)
        assert_frame_equal(load_runs("second", shared.uri), first)
        with pytest.raises(AssertionError, match="read again"):
            load_runs("first", shared.uri)

    def test_every_change_is_seen(self, shared: Writer) -> None:
        self.load("second", shared.uri)
        run = self.load("second", shared.uri)["run_id"][0]
        shared.client.log_metric(run, "psnr", 5.0)
        assert 5.0 in self.load("second", shared.uri)["psnr"]
        shared.client.set_tag(run, names.TAG_STATE, "COMPLETE")
        assert "WAITING" not in self.load("second", shared.uri)["state"]
        shared.client.delete_run(run)
        assert run not in self.load("second", shared.uri)["run_id"]
        shared.client.restore_run(run)
        assert run in self.load("second", shared.uri)["run_id"]

    def test_what_a_reader_adds_is_not_kept(self, shared: Writer) -> None:
        table = load_runs("second", shared.uri)
        table.insert_column(0, pl.lit(1).alias("mine"))
        self.load("second", shared.uri)
        assert "mine" not in self.load("second", shared.uri).columns

    def test_only_the_newest_table_is_kept(self, shared: Writer, tmp_path: Path) -> None:
        for value in range(3):
            run = self.load("second", shared.uri)["run_id"][0]
            shared.client.log_metric(run, "psnr", float(value), step=value)
        self.load("second", shared.uri)
        assert len(list((tmp_path / "cache" / "analysis").glob("*"))) == 1


def test_export_command_writes_types_and_units(shared: Writer, tmp_path: Path) -> None:
    out = tmp_path / "out" / "runs.parquet"
    command = ["export", "--out", str(out), "--tracking-uri", shared.uri]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "6 trials" in done.output
    assert "3 trials not complete" in done.output
    assert_frame_equal(pl.read_parquet(out), load_runs(None, shared.uri, plan="all"))
    schema = parquet.read_schema(out)
    assert schema.field("psnr").metadata == {b"unit": b"dB"}
    assert schema.field("stage_seconds.train_tokenizer").metadata == {b"unit": b"s"}
    assert schema.field("ssim").metadata is None
    csv = tmp_path / "runs.csv"
    done = CliRunner().invoke(app, ["export", "first", "--out", str(csv), *command[3:]])
    assert done.exit_code == 0, done.output
    assert pl.read_csv(csv)["psnr"].to_list() == [20.0]


def test_export_refuses_other_files(shared: Writer, tmp_path: Path) -> None:
    command = ["export", "--out", str(tmp_path / "runs.xlsx"), "--tracking-uri", shared.uri]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert ".parquet or .csv" in done.output


def test_units_and_pandas(shared: Writer) -> None:
    table = load_runs("second", shared.uri)
    assert units(table)["ar_val_loss"] == "nats/token"
    assert "ssim" not in units(table)
    frame = to_pandas(table)
    assert frame["psnr"].isna().sum() == 2
    assert frame.attrs["units"]["psnr"] == "dB"


def test_a_name_with_dots_is_not_cut(tmp_path: Path) -> None:
    assert with_ending(tmp_path / "lr-0.1-smoke", "png") == tmp_path / "lr-0.1-smoke.png"
