"""The main command on the real thing, at scale smoke: run, reuse, fail, interrupt, refuse."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gigatok.stages import STAGES
from orchestration.runs.state import StageFolder
from orchestration.sweep.definition import expand, load_sweep
from orchestration.tracking.spool import MetricPoint, SpoolReader

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--set", "tokenizer.decoder=S")
"""Cuts decoder_scaling down to one trial of eight stages."""

Launch = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: str, module: str = "orchestration.launch") -> list[str]:
    return [sys.executable, "-m", module, *arguments]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space and a quote in its name, in which one sweep has been run."""
    folder = tmp_path_factory.mktemp("a user's runs")
    result = run(folder, "decoder_scaling", "--scale", "smoke", *SMALL)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "launch.txt").write_text(result.stdout, encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*arguments, **options),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def stage_folders(folder: Path) -> dict[str, list[StageFolder]]:
    stages = folder / "runs" / "stages"
    return {
        path.name: [StageFolder.at(one) for one in sorted(path.glob("[!.]*"))]
        for path in sorted(stages.iterdir())
    }


def test_every_stage_is_complete_and_nothing_is_left_over(workplace: Path) -> None:
    folders = stage_folders(workplace)
    assert len(folders) == 8
    for (folder,) in folders.values():
        assert folder.state() == "COMPLETE"
        assert folder.lease() is None
        assert folder.works() == []
        done = folder.done()
        assert done is not None
        assert all((folder.out / name).stat().st_size == s for name, s in done.artifacts.items())


def test_every_metric_of_the_result_table_is_there_with_its_protocol(workplace: Path) -> None:
    metrics: dict[str, float] = {}
    protocols: dict[str, str] = {}
    for (folder,) in stage_folders(workplace).values():
        done = folder.done()
        assert done is not None
        metrics |= done.metrics
        protocols |= done.protocol
    measured = {"rfid", "rkid", "psnr", "codebook_usage", "ar_val_loss", "gfid", "gkid"}
    assert measured | {"params_total", "probe_accuracy"} <= metrics.keys()
    assert measured | {"probe_accuracy"} <= protocols.keys()


def test_stages_measure_what_searches_are_told_they_do(workplace: Path) -> None:
    (trial,) = expand(load_sweep("decoder_scaling", "smoke", SMALL[1:])).trials
    for stage, (folder,) in stage_folders(workplace).items():
        done = folder.done()
        assert done is not None
        assert done.metrics.keys() == set(STAGES[stage].scores(trial.config))
        points = [item for line in SpoolReader(folder).lines() for item in line.items]
        curves = {
            p.name for p in points if isinstance(p, MetricPoint) and p.name.startswith("train/")
        }
        if stage.startswith("train_"):
            assert curves == set(STAGES[stage].curves(trial.config))


def test_a_launch_ends_with_the_answer_and_then_the_table(workplace: Path) -> None:
    text = (workplace / "launch.txt").read_text(encoding="utf-8")
    said = [
        "8 stages run, 0 reused, 0 failed",
        "No two settings that differ in one axis",
        "decoder_scaling at scale smoke: At a fixed encoder",
        "figure    figures/decoder_scaling-smoke.png",
        "report    figures/decoder_scaling-smoke.html",
    ]
    assert [text.count(words) for words in said] == [1] * len(said)
    assert sorted(said, key=text.index) == said


def test_figure_table_and_runs_exist(workplace: Path) -> None:
    for suffix in ("png", "pdf", "csv", "json", "html"):
        assert (workplace / "figures" / f"decoder_scaling-smoke.{suffix}").stat().st_size > 0
    page = (workplace / "figures" / "decoder_scaling-smoke.html").read_text(encoding="utf-8")
    assert "What the models make" in page
    assert page.count('src="data:image/png') == 2, "the figure, and pictures"
    with sqlite3.connect(workplace / "runs" / "mlflow.db") as store:
        statuses = store.execute("select status, count(*) from runs group by status").fetchall()
    assert statuses == [("FINISHED", 10)]  # a sweep, a trial, eight stages


def test_what_stages_took_predicts_the_next_ones(workplace: Path) -> None:
    again = ("decoder_scaling", "--scale", "smoke", *SMALL, "--set", "seed=1")
    plan = run(workplace, "plan", *again, "--json", module="orchestration")
    assert plan.returncode == 0, plan.stderr
    costs = [stage["cost"] for stage in json.loads(plan.stdout)["stages"].values()]
    assert all(cost["low"] < cost["seconds"] < cost["high"] for cost in costs)
    known = {folder.name.split("-")[-1] for (folder,) in stage_folders(workplace).values()}
    assert {cost["record"].split("(")[1].rstrip(")") for cost in costs} <= known


def test_over_budget_is_refused_with_the_sums(workplace: Path) -> None:
    again = ("decoder_scaling", "--scale", "smoke", *SMALL, "--set", "seed=1")
    before = stage_folders(workplace)
    result = run(workplace, *again, "--max-gpu-hours", "1e-6", "--yes")
    assert result.returncode == 3
    assert "refused: --max-gpu-hours 1e-06: 1 train_tokenizer" in result.stderr
    assert " core hours (" in result.stderr
    assert stage_folders(workplace) == before
    status = run(workplace, "status", "decoder_scaling", module="orchestration")
    assert "the newest launch was refused: --max-gpu-hours 1e-06: 1 train_to" in status.stdout
    assert "8 stages ran uncalibrated" in status.stdout


def test_launching_again_runs_nothing_and_is_quick(workplace: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = run(workplace, "decoder_scaling", "--scale", "smoke", *SMALL)
    assert result.returncode == 0
    assert "0 stages run, 8 reused, 0 failed" in result.stdout
    assert "figures/decoder_scaling-smoke.png" in result.stdout
    # Half a second of processor time, where a launch that imports torch takes several.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2


def test_a_launch_says_what_it_could_not_draw(workplace: Path) -> None:
    figures, kept = workplace / "figures", workplace / "kept"
    figures.rename(kept)
    figures.write_text("a file, where a folder has to be")
    try:
        result = run(workplace, "decoder_scaling", "--scale", "smoke", *SMALL)
    finally:
        figures.unlink()
        kept.rename(figures)
    assert result.returncode == 0, "a figure is no result"
    assert "write elsewhere with --out FOLDER" in result.stdout
    assert "not drawn; this tries again" in result.stdout


@pytest.mark.slow
def test_another_guidance_runs_generation_evaluation_only(workplace: Path) -> None:
    result = run(
        workplace, "decoder_scaling", "--scale", "smoke", *SMALL, "--set", "sampling.cfg_scale=2.0"
    )
    assert result.returncode == 0
    assert "1 stages run, 7 reused" in result.stdout.replace("1 stage run", "1 stages run")
    assert len(stage_folders(workplace)["evaluate_generation"]) == 2


@pytest.mark.slow
def test_outputs_that_were_purged_are_made_again_when_a_stage_needs_them(
    tmp_path: Path, workplace: Path
) -> None:
    shutil.copytree(workplace / "runs" / "stages", tmp_path / "runs" / "stages")
    (tokenizer,) = stage_folders(tmp_path)["train_tokenizer"]
    weights = tokenizer.out / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    flipped = ("--scale", "smoke", *SMALL, "--set", "codes.flip=true")
    again = run(tmp_path, "decoder_scaling", *flipped)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "runs again: train_tokenizer S-S, out/model.safetensors is missing" in again.stdout
    assert weights.read_bytes() == before
    weights.write_bytes(b"0" * len(before))  # of the same size: only its hash tells
    looked = run(tmp_path, "doctor", "--verify", module="orchestration")
    assert looked.returncode == 3
    command = "python -m orchestration retry decoder_scaling S-S train_tokenizer"
    assert command in " ".join(looked.stdout.split())
    mended = run(tmp_path, *command.split()[3:], module="orchestration")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert weights.read_bytes() == before


def test_dry_run_tells_what_is_reused_and_touches_nothing(tmp_path: Path, workplace: Path) -> None:
    result = run(workplace, "tokenizer_scaling", "--scale", "smoke", "--dry-run")
    assert result.returncode == 0
    assert "reused for S-S semantic_weight=0.5: everything" in result.stdout
    fresh = run(tmp_path, "tokenizer_scaling", "--scale", "smoke", "--dry-run", "--json")
    plan = json.loads(fresh.stdout)
    assert len(plan["trials"]) == 6
    assert {stage["state"] for stage in plan["stages"].values()} == {"WAITING"}
    assert list(tmp_path.iterdir()) == []


def test_status_and_logs(workplace: Path) -> None:
    status = run(workplace, "status", "decoder_scaling", "--json", module="orchestration")
    assert {s["state"] for s in json.loads(status.stdout)["stages"].values()} == {"COMPLETE"}
    table = run(workplace, "status", "decoder_scaling", module="orchestration")
    assert "8 complete" in table.stdout
    logs = run(workplace, "logs", "decoder_scaling", "S-S", module="orchestration")
    assert "== train_tokenizer" in logs.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "nosuch"), "nosuch: never launched"),
        (("logs", "decoder_scaling", "S-X"), "no trial 'S-X'; trials: S-S"),
        (("logs", "decoder_scaling", "S-S", "x"), "no stage 'x'; stages of S-S: extract_"),
    ],
)
def test_wrong_questions(workplace: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(workplace, *arguments, module="orchestration")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_failure_is_told_and_the_other_trials_go_on(tmp_path: Path) -> None:
    sweep = tmp_path / "rates.yaml"
    sweep.write_text(
        "question: Which rate?\nscale: smoke\n"
        "axes:\n  tokenizer.lr: [2e-3, 1e30]\n"
        "set:\n  tokenizer.encoder: S\n  tokenizer.decoder: S\n"
        "stages: [extract_codes]\n"
    )
    result = run(tmp_path, "rates.yaml")
    assert result.returncode == 1
    assert "NonFiniteLoss: loss is" in result.stdout
    assert "1 failed, 1 behind" in result.stdout
    states = json.loads(run(tmp_path, "status", "rates", "--json", module="orchestration").stdout)
    found = sorted(stage["state"] for stage in states["stages"].values())
    assert found == ["COMPLETE", "COMPLETE", "COMPLETE", "FAILED", "UPSTREAM_FAILED"]
    log = run(tmp_path, "logs", "rates", "lr=1e+30", "train_tokenizer", module="orchestration")
    assert "NonFiniteLoss" in log.stdout


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_the_same_command_continues(tmp_path: Path) -> None:
    long = ("--set", "tokenizer.steps=400", "--set", "tokenizer.checkpoint_every=1000")
    sweep = tmp_path / "one.yaml"
    sweep.write_text(
        "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
        "axes: {tokenizer.semantic_weight: [0]}\nstages: [train_tokenizer]\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command("one.yaml", *long),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_step(tmp_path, 50)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "The same command continues" in output
    (folder,) = stage_folders(tmp_path)["train_tokenizer"]
    assert folder.state() == "WAITING"
    assert folder.checkpoint_step() > 0
    assert [attempt.outcome for attempt in folder.attempts()] == ["interrupted"]
    again = run(tmp_path, "one.yaml", *long)
    assert again.returncode == 0, again.stdout
    assert folder.attempts()[1].first_step >= 50


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        stages = folder / "runs" / "stages" / "train_tokenizer"
        for path in stages.glob("[!.]*") if stages.exists() else ():
            lease = StageFolder.at(path).lease()
            if lease is not None and lease.progress.get("done", 0) >= step:
                return
        time.sleep(0.1)
    raise AssertionError(f"no stage reached step {step}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("decoder_scaling", "--backend", "slrum"), "--backend slrum: not one of local"),
        (("decoder_scaling", "--jobs", "0"), "--jobs 0: must be at least 1"),
        (("decoder_scaling", "--runs-dir", "/proc/runs"), "--runs-dir /proc/runs: "),
        (("decoder_scaling", "--tracking-uri", "file:mlruns"), "sqlite:///"),
        (("no_such_sweep",), "no such file"),
        (("decoder_scaling", "--set", "tokenizer.decodr=S"), "did you mean 'tokenizer.decoder'"),
    ],
)
def test_wrong_requests(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(tmp_path, *arguments, "--scale", "smoke")
    assert result.returncode == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        (small / "filler").write_bytes(b"0" * 60_000)
        result = run(tmp_path, "decoder_scaling", "--scale", "smoke", "--runs-dir", str(small))
        assert result.returncode == 2
        assert "No space left on device" in result.stderr
        assert "Traceback" not in result.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)
