"""A scheduler from outside the repository takes a sweep from launch to its end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from orchestration.backends.detached.journal import Journal
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.sites import install_plugin
from tests.orchestration.programs import ROOT, call

pytestmark = pytest.mark.slow
SECONDS = 900.0
SWEEP = """
question: Does it run?
scale: smoke
set: {tokenizer.semantic_weight: 0, tokenizer.encoder: S, tokenizer.decoder: S}
axes: {tokenizer.lr: [2.0e-4, 3.0e-4]}
stages: [extract_codes]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user works, whose Python knows one more backend."""
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    install_plugin(plugin, monkeypatch)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "study.yaml").write_text(SWEEP)
    return folder


def command(place: Path, *words: str, expect: int = 0) -> str:
    # Not the usual environment: it does not lead to the plug-in.
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = call(place, *words, code=expect, seconds=SECONDS, variables=variables)
    return done.stdout + done.stderr


def launch(place: Path, *words: str, expect: int = 0) -> str:
    options = ["--backend", "workstation", "--yes", "--jobs", "2", *words]
    return command(place, "orchestration.launch", "study.yaml", *options, expect=expect)


def folders(place: Path) -> list[StageFolder]:
    return [StageFolder.at(path) for path in sorted(place.glob("runs/stages/*/[!.]*"))]


def wait_for_completion(place: Path, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while [folder.state() for folder in folders(place)] != ["COMPLETE"] * count:
        assert time.monotonic() < deadline, [f.failure() for f in folders(place)]
        time.sleep(0.5)


def kill_one(folder: StageFolder) -> None:
    """Kill the worker of a stage once it trains."""
    deadline = time.monotonic() + SECONDS
    while (lease := folder.lease()) is None or not lease.progress.get("done", 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(lease.pid, 9)


def test_a_sweep_is_launched_followed_cancelled_killed_and_resumed(place: Path) -> None:
    said = launch(place, "--set", "tokenizer.steps=400")
    assert "looks after the sweep when they are over" in said
    shown = json.loads(command(place, "orchestration", "status", "study", "--json"))
    handles = {str(job.handle) for job in Journal(Store(place / "runs")).jobs().values()}
    assert len(handles) == 4
    codes = [stage for stage in shown["stages"].values() if stage["stage"] == "extract_codes"]
    assert {stage["job"] for stage in codes} < handles
    assert "4 stages cancelled" in command(place, "orchestration", "cancel", "study")
    assert {folder.state() for folder in folders(place)} <= {"FAILED", "WAITING"}
    tokenizers = [f for f in folders(place) if f.path.parent.name == "train_tokenizer"]
    before = len(tokenizers[0].attempts())
    command(place, "orchestration", "resume", "study", "--yes")
    kill_one(tokenizers[0])  # nobody is logged in now
    assert "sh is here" in command(place, "orchestration", "doctor", "--backend", "workstation")
    wait_for_completion(place, 4)
    outcomes = [attempt.outcome for attempt in tokenizers[0].attempts()]
    assert outcomes[before:] == [None, "complete"]
    assert "4 complete" in command(place, "orchestration", "status", "study")
    assert "0 stages cancelled" in command(place, "orchestration", "cancel", "study")


def test_a_profile_has_the_options_that_the_backend_takes(place: Path) -> None:
    asked = ("--dry-run", "--profile", "profile.yaml")
    profile = place / "profile.yaml"
    profile.write_text("default: {workstation: {nice: 5}}\n")
    launch(place, *asked)
    profile.write_text("default: {workstation: {nicely: 5}, workstaton: {nice: 5}}\n")
    said = launch(place, *asked, expect=2)
    assert "default.workstation: nicely: the only option is nice" in said
    assert "default.workstaton: no such key" in said
    assert "did you mean 'workstation'?" in said
