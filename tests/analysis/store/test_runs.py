from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import analysis.store.runs as runs_module
from analysis import load_curves, load_runs, missing
from analysis.store.interface import SweepRun
from analysis.store.opening import open_store
from analysis.store.requests import RequestError
from analysis.store.servers import ClientStore
from gigatok.names import METRICS, PREFIX_PROTOCOL


@pytest.fixture(scope="session")
def grid(uri: str) -> pl.DataFrame:
    return load_runs("decoder_scaling", uri)


def test_newest_launch_one_row_per_trial_smallest_first(grid: pl.DataFrame) -> None:
    assert grid["plan"].unique().to_list() == ["bbbb2222"]
    assert grid.height == 9, "the deleted trial and the other plan must not be there"
    order = grid.select("tokenizer", "tokenizer.semantic_weight", "seed").rows()
    assert order == [
        ("S-S", 0.0, 0),
        ("S-S", 0.0, 1),
        ("S-S", 0.5, 0),
        ("S-S", 0.5, 1),
        ("S-B", 0.0, 0),
        ("S-L", 0.0, 0),
        ("S-L", 0.0, 1),
        ("S-L", 0.5, 0),
        ("S-L", 0.5, 1),
    ]


def test_a_trial_has_the_params_of_its_sweep_but_its_own_win() -> None:
    own = pl.DataFrame({"run": [0, 1, 2], "lr": ["1", None, "null"], "seed": ["0", "0", "0"]})
    sweeps = [
        SweepRun("one", "study", 0, params={"lr": "9", "steps": "2"}),
        SweepRun("two", "study", 0, params={"lr": "8", "steps": "3"}),
        SweepRun("of an earlier version", "study", 0),
    ]
    found = runs_module._with_shared(own, pl.Series(["one", "one", "two"]), sweeps)
    assert found["lr"].to_list() == ["1", "9", "null"]
    assert found["steps"].to_list() == ["2", "2", "3"]
    assert found["seed"].to_list() == ["0", "0", "0"]


def test_a_trial_has_the_protocols_of_its_sweep_where_it_has_the_metric() -> None:
    tag = PREFIX_PROTOCOL + "psnr"
    rows = {
        "shares": ("one", None, 1.0),
        "differs": ("one", "9 images", 1.0),
        "has a score that is no number": ("one", None, math.nan),
        "has no score": ("one", None, None),
        "has none, and says why": ("one", "not measured", None),
        "has a score and no protocol": ("one", "", 1.0),
        "of an earlier version": ("two", "8 images", 1.0),
        "of a version without protocols": ("two", None, 1.0),
    }
    sweep, own, psnr = zip(*rows.values(), strict=True)
    found = pl.DataFrame({"sweep_run_id": sweep, tag: own})
    sweeps = [SweepRun("one", "study", 0, tags={tag: "10 images"}), SweepRun("two", "study", 0)]
    filled = runs_module._with_protocols(found, pl.DataFrame({"psnr": psnr}), sweeps)
    assert dict(zip(rows, filled[tag].to_list(), strict=True)) == {
        "shares": "10 images",
        "differs": "9 images",
        "has a score that is no number": "10 images",
        "has no score": None,
        "has none, and says why": "not measured",
        "has a score and no protocol": None,
        "of an earlier version": "8 images",
        "of a version without protocols": None,
    }
    alone = runs_module._with_protocols(
        found.drop(tag), pl.DataFrame({"psnr": psnr, "rfid": psnr}), sweeps
    )
    assert alone[tag][0] == "10 images"


def test_columns_are_typed(grid: pl.DataFrame) -> None:
    types = {
        "seed": pl.Int64,
        "tokenizer": pl.String,
        "tokenizer.decoder.width": pl.Int64,
        "tokenizer.lr": pl.Float64,
        "tokenizer.rotation_trick": pl.Boolean,
        "tokenizer.cnn.multipliers": pl.String,
        "tokenizer.micro_batch": pl.String,
        "git_dirty": pl.Boolean,
        "launched": pl.Float64,
        "axes": pl.List(pl.String),
        **dict.fromkeys(METRICS, pl.Float64),
    }
    assert {name: grid.schema[name] for name in types} == types
    assert grid["tokenizer.lr"][0] == 2e-5
    assert grid["tokenizer.micro_batch"].null_count() == grid.height
    assert grid["tokenizer.cnn.multipliers"][0] == "[1, 2]"


def test_values_protocols_and_stage_links(grid: pl.DataFrame) -> None:
    row = grid.filter((pl.col("tokenizer") == "S-L") & (pl.col("seed") == 1)).row(0, named=True)
    assert (row["psnr"], row["ar_val_loss"]) == (18.1099, 4.40)
    assert row["protocol.lpips"] == "AlexNet at 64 px, 2000 validation images"
    assert row["stage_key.train_tokenizer"].startswith("stagekey-S-L")
    assert len(row["stage_run.train_tokenizer"]) == 32
    assert (row["git_sha"], row["git_dirty"], row["state"]) == ("c0ffee", False, "COMPLETE")
    assert row["rfid"] is None
    assert row["protocol.rfid"] is None


def test_plan_and_scale_choose_a_launch(uri: str) -> None:
    assert load_runs("decoder_scaling", uri, scale="smoke")["psnr"].to_list() == [9.0]
    assert load_runs("decoder_scaling", uri, plan="aaaa")["scale"].to_list() == ["smoke"]
    assert load_runs("decoder_scaling", uri, plan="all").height == 10


def test_a_trial_of_two_plans_appears_once(uri: str) -> None:
    weights = load_runs("entropy_loss", uri, plan="all")["tokenizer.entropy_weight"]
    assert sorted(weights) == [0.0, 0.01, 0.02]


def test_null_nan_and_infinity_stay_apart(uri: str) -> None:
    table = load_runs("tokenizer_scaling", uri)
    by_name = {row["tokenizer"]: row for row in table.iter_rows(named=True)}
    assert math.isnan(by_name["S-B"]["ar_val_loss"])
    assert by_name["S-B"]["gkid"] == math.inf
    assert by_name["S-L"]["ar_val_loss"] is None
    assert by_name["S-L"]["state"] == "FAILED"
    assert by_name["S-L"]["error"] == "train_tokenizer: out of memory"
    assert by_name["S-S"]["error"] is None
    found = {(r[0], r[3]): r[4] for r in missing(table).rows()}
    assert found["S-B seed=0", "ar_val_loss"] == "NaN"
    assert found["S-L seed=0", "ar_val_loss"] == "null"
    assert ("S-S seed=0", "ar_val_loss") not in found
    assert not any(metric == "rfid" for _, metric in found), "no trial has it: nothing to expect"


def test_the_point_written_last_wins_in_a_curve(uri: str, grid: pl.DataFrame) -> None:
    stage_runs = grid["stage_run.train_tokenizer"].to_list()
    curve = load_curves(stage_runs[:2], "train/loss", uri)
    assert curve.height == 6
    first = curve.filter(pl.col("run_id") == stage_runs[0])
    assert first.select("step", "value").rows() == [(1, 0.9), (2, 0.6), (3, 0.5)]
    assert load_curves([], "train/loss", uri).is_empty()


@pytest.mark.parametrize("sweep", ["decoder_scaling", "tokenizer_scaling", "entropy_loss"])
def test_both_readers_give_the_same_table(
    uri: str, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = load_runs(sweep, uri, plan="all")
    curves = load_curves(direct["stage_run.train_tokenizer"].to_list(), "train/loss", uri)
    monkeypatch.setattr(runs_module, "open_store", ClientStore)
    assert_frame_equal(load_runs(sweep, uri, plan="all"), direct)
    again = load_curves(direct["stage_run.train_tokenizer"].to_list(), "train/loss", uri)
    assert_frame_equal(again, curves)
    assert sorted(ClientStore(uri).sweeps()) == sorted(open_store(uri).sweeps())


@pytest.fixture
def server(database: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--backend-store-uri", f"sqlite:///{database}"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(command, env=environment, cwd=database.parent)
    try:
        yield _wait_for(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(240):
        assert process.poll() is None, "the server stopped"
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return address
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"no server at {address} after a minute")


@pytest.mark.slow
def test_a_tracking_server_gives_the_same_table(uri: str, server: str) -> None:
    for sweep in ("decoder_scaling", "tokenizer_scaling"):
        assert_frame_equal(load_runs(sweep, server, plan="all"), load_runs(sweep, uri, plan="all"))


def test_unknown_sweep_names_those_there_are(uri: str) -> None:
    with pytest.raises(RequestError, match=r"did you mean 'decoder_scaling'\?.*entropy_loss"):
        load_runs("decoder_scalin", uri)
    with pytest.raises(RequestError, match=r"no sweep 'q' in .*mlflow\.db\. It holds: decoder_sc"):
        load_runs("q", uri)
    with pytest.raises(
        RequestError, match="not launched at scale 'paper'; it was at micro, smoke"
    ):
        load_runs("decoder_scaling", uri, scale="paper")
    with pytest.raises(RequestError, match=r"'q' is not a plan .* its plans: bbbb2222, aaaa1111"):
        load_runs("decoder_scaling", uri, plan="q")
    with pytest.raises(RequestError, match="no trial yet"):
        load_runs("launched_only", uri)


def test_stores_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no tracking database at .*none\.db.*launch SWEEP"):
        load_runs("x", f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "text.db").write_text("hello, this is not a database at all" * 50)
    with pytest.raises(RequestError, match="cannot be read as an MLflow database"):
        load_runs("x", f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(RequestError, match=r"'mlruns' is not supported: give sqlite:///PATH"):
        load_runs("x", "mlruns")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(RequestError, match="no tracking server answers at"):
            load_runs("x", closed)


def test_reading_leaves_the_database_alone(uri: str, database: Path) -> None:
    before = database.read_bytes()
    load_runs("decoder_scaling", uri)
    assert database.read_bytes() == before
