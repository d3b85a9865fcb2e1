"""A stage that a plug-in registers without costs: shown as unknown, timed by records alone."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gigatok import plugins
from gigatok.stages import STAGES
from orchestration import Study
from orchestration.costs.calibration import load_calibration
from orchestration.study.launch import PreparedLaunch

PLUGIN = """
from gigatok.config import Config
from gigatok.runtime.context import Scores
from gigatok.stages import Stage, register


class CountConfig(Config):
    seed: int


def run(config, inputs, output_dir, tracker, runtime):
    (output_dir / "seed.txt").write_text(str(config.seed))
    return Scores({})


register(Stage("count", 1, CountConfig, lambda t: CountConfig(seed=t.seed), __name__, "count"))
"""
SWEEP = """
question: What does a stage cost that says nothing about it?
scale: smoke
plugins: [./count.py]
axes: {tokenizer.decoder: [S]}
set: {tokenizer.encoder: S}
seeds: SEEDS
stages: [count]
"""
WAITS = """
import sys, time
from orchestration import worker
from orchestration.runs import provenance

began = []
provenance.count_waiting = lambda: began.append(time.time())
provenance.waited_seconds = lambda: time.time() - began[-1]
sys.exit(worker.main(sys.argv[1]))
"""
"""A worker that finds no processor from the moment that it counts to the moment it is asked."""
UNPRICED = "stages are registered without costs (count): totals, --max-gpu-hours and --max-disk"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    stages, loaded = dict(STAGES), dict(plugins.LOADED)
    (tmp_path / "count.py").write_text(PLUGIN)
    yield tmp_path
    STAGES.clear()
    STAGES.update(stages)
    plugins.LOADED.clear()
    plugins.LOADED.update(loaded)


def study(folder: Path, seeds: str) -> Study:
    (folder / "counting.yaml").write_text(SWEEP.replace("SEEDS", seeds))
    return Study(folder / "counting.yaml", runs=folder / "runs")


def shown(prepared: PreparedLaunch) -> str:
    console = Console(file=io.StringIO(), width=200)
    prepared.print(console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def totals(prepared: PreparedLaunch) -> dict[str, Any]:
    found: dict[str, Any] = prepared.data()["totals"]
    return found


def test_what_is_unknown_is_null_and_said(folder: Path) -> None:
    prepared = study(folder, "[1, 2]").plan(max_gpu_hours=1.0, max_disk=1.0)
    assert prepared.refused == []
    sums = totals(prepared)
    assert (sums["unpriced"], sums["uncalibrated"], sums["output_bytes"]) == (2, 0, 0)
    assert sums["flops"] is sums["hours"] is sums["memory_bytes"] is None
    (cost, _) = (stage["cost"] for stage in prepared.data()["stages"].values())
    assert cost["flops"] is cost["seconds"] is cost["disk_bytes"] is cost["output_bytes"] is None
    text = shown(prepared)
    assert f"2 {UNPRICED} count neither their FLOPs nor their disk, and no time of 2" in text
    assert [line.split()[4] for line in text.splitlines() if line.startswith("count ")] == ["–"]


def test_other_stages_are_counted_beside_it(folder: Path) -> None:
    both = SWEEP.replace("stages: [count]", "stages: [train_tokenizer, count]")
    (folder / "counting.yaml").write_text(both.replace("SEEDS", "[1]"))
    prepared = Study(folder / "counting.yaml", runs=folder / "runs").plan(max_gpu_hours=1.0)
    # The others are uncalibrated, and no limit can be kept that nobody knows.
    (refused,) = prepared.refused
    assert "nobody knows what 2 of 3 stages take" in refused
    sums = totals(prepared)
    assert sums["flops"] is None, "a sum without it would be too small"
    assert sums["by_stage"]["train_tokenizer"]["flops"] > 0
    assert sums["output_bytes"] > 0


@pytest.mark.heavy
def test_its_time_comes_from_records(folder: Path) -> None:
    assert study(folder, "[1]").run(jobs=1).exit_code == 0
    (record,) = load_calibration(study(folder, "[1]").store).observations
    assert record.flops is record.unit_flops is None
    prepared = study(folder, "[1, 2]").plan(jobs=1, max_gpu_hours=record.seconds / 7200)
    sums = totals(prepared)
    # Times below a millisecond say nothing and are taken as one.
    assert sums["seconds"] == pytest.approx(max(record.seconds, 1e-3))
    assert (sums["stages"], sums["unpriced"], sums["flops"]) == (1, 1, None)
    assert f"1 {UNPRICED} count neither their FLOPs nor their disk\n" in shown(prepared)
    (refused,) = prepared.refused
    assert refused.startswith("--max-gpu-hours"), "now the limit counts its time"


@pytest.mark.heavy
def test_a_stage_that_only_waited_has_a_time(folder: Path) -> None:
    first = study(folder, "[1]")
    assert first.run(jobs=1).exit_code == 0
    (stage,) = first.store.stages.glob("count/[!.]*")
    (stage / "DONE").unlink()
    before = load_calibration(first.store).observations
    subprocess.run([sys.executable, "-c", WAITS, str(stage)], check=True, cwd=folder)
    (found,) = load_calibration(first.store).observations[len(before) :]
    assert found.waited_seconds is not None
    assert found.seconds > 0
