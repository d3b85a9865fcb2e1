"""Plug-ins that a sweep names, from the plan to the results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.orchestration.test_from_outside import MODULE, STRIPES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
question: Are reconstructions as bright as their originals?
scale: smoke
plugins: [../own/brightness.py, ../own/stripes.py]
axes: {tokenizer.decoder: [S]}
set: {tokenizer.encoder: S, data.name: stripes, measure_brightness.gamma: 2.2}
stages: [measure_brightness]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a sweep, beside one with its plug-ins."""
    for name, text in {"own/brightness.py": MODULE, "own/stripes.py": STRIPES}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "bright.yaml").write_text(SWEEP)
    return tmp_path / "work"


def started(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == code, shown
    return shown


def command(place: Path, *arguments: str, code: int = 0) -> str:
    return ended(started(place, *arguments), code)


def planned(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        command(place, "orchestration", "plan", "bright.yaml", "--json")
    )["stages"]
    return {stage["stage"]: (key, stage["state"]) for key, stage in found.items()}


def test_a_sweep_with_plugins_runs_and_is_reused_until_they_change(place: Path) -> None:
    shown = command(place, "orchestration.launch", "bright.yaml")
    assert "5 stages run, 0 reused, 0 failed" in shown
    assert "brightness ratio" in shown
    before = planned(place)
    assert {state for _, state in before.values()} == {"COMPLETE"}
    # Another place and another name: the content is the same.
    shutil.move(place.parent / "own" / "brightness.py", place / "light.py")
    sweep = place / "bright.yaml"
    sweep.write_text(SWEEP.replace("../own/brightness.py", "./light.py"))
    assert planned(place) == before
    # Other code: what it touches runs again, and nothing else.
    (place / "light.py").write_text(MODULE + "# edited\n")
    after = planned(place)
    assert {name for name in after if after[name] != before[name]} == {"measure_brightness"}
    assert after["measure_brightness"][1] == "WAITING"


def test_stages_and_results_outlive_their_plugins(place: Path) -> None:
    launch = started(place, "orchestration.launch", "bright.yaml", "--backend", "ray")
    copies = place / "runs" / "plugins"
    while len(list(copies.glob("[!.]*/*.py"))) < 2:
        assert launch.poll() is None, ended(launch)
        time.sleep(0.05)
    # The runs directory has a copy of the code, which workers load; none of them runs yet.
    shutil.rmtree(place.parent / "own")
    assert "5 stages run, 0 reused, 0 failed" in ended(launch)
    assert "brightness" in command(place, "orchestration", "status", "bright")
    assert "5 reused" in command(place, "orchestration", "resume", "bright")
    shutil.rmtree(place / "runs" / "plugins")
    status = command(place, "orchestration", "status", "bright")
    assert "measure_brightness" in status
    assert "plug-in ../own/brightness.py: no such file" in status
    assert "0." in command(place, "analysis", "table", "bright", "--format", "csv")
    refused = command(place, "orchestration", "resume", "bright", code=2)
    assert "plug-in ../own/brightness.py: no such file" in refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere\n", "plug-in ../own/brightness.py: ModuleNotFoundError: No module named"),
        ("1 / 0\n", "plug-in ../own/brightness.py: ZeroDivisionError: division by zero ("),
        (MODULE + MODULE, "a trial has 'measure_brightness' already; choose another name"),
    ],
)
def test_a_broken_plugin_is_a_problem_of_the_sweep(place: Path, text: str, message: str) -> None:
    (place.parent / "own" / "brightness.py").write_text(text)
    shown = command(place, "orchestration", "plan", "bright.yaml", code=2)
    assert "bright.yaml:4" in shown
    assert message in shown


def test_a_stage_whose_plugin_fails_takes_nothing_else_with_it(place: Path) -> None:
    broken = MODULE.replace("pixels = originals", "1 / 0\n    pixels = originals")
    (place.parent / "own" / "brightness.py").write_text(broken)
    shown = command(place, "orchestration.launch", "bright.yaml", code=1)
    assert "4 stages run" in shown
    assert "ZeroDivisionError" in shown
