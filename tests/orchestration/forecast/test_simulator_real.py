"""The simulator against a real launch, with the times that its stages really took."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.commands.simulating import Scenario
from orchestration.execution.progress import survey
from orchestration.forecast.simulator import Cluster, Work
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_real_smoke_sweep_takes_as_long_as_simulated(tmp_path: Path, jobs: int) -> None:
    command = [sys.executable, "-m", "orchestration.launch", "decoder_scaling", "--scale", "smoke"]
    options = ["--jobs", str(jobs), "--runs-dir", str(tmp_path / "runs")]
    subprocess.run([*command, *options], check=True, cwd=tmp_path, capture_output=True)
    sweep = load_sweep("decoder_scaling", "smoke")
    plan = make_plan(sweep, expand(sweep))
    done = survey(plan, Store(tmp_path / "runs"))
    assert len(done.reused) == len(plan.stages)
    # A slot is taken from submission, which writes the spec, until the stage is done.
    folders = done.folders.values()
    starts = [(folder.path / "spec.json").stat().st_mtime for folder in folders]
    ends = [folder.done_file.stat().st_mtime for folder in folders]
    real = max(ends) - min(starts)
    works = {
        key: Work(end - start) for key, start, end in zip(done.folders, starts, ends, strict=True)
    }
    fresh = survey(plan, Store(tmp_path / "nothing"))
    scenario = Scenario(fresh, works, Cluster(jobs), {"node_lost": 1, "preempted": 1}, 0)
    outcome = scenario.run("longest", 1e9)
    print(f"{jobs} jobs: simulated {outcome.makespan:.1f} s, real {real:.1f} s")
    assert outcome.makespan == pytest.approx(real, rel=0.2)
