"""The commands on a real sweep: two trials that would train for hours, and a broken one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.runs.state import StageFolder
from tests.orchestration.programs import environment

pytestmark = pytest.mark.heavy
SECONDS = 180
LONG = (
    "question: q\nscale: smoke\n"
    "set: {tokenizer.encoder: S, tokenizer.decoder: S, tokenizer.steps: 1000000, "
    "tokenizer.checkpoint_every: 1000000}\n"
    "axes: {tokenizer.lr: [1e-3, 2e-3]}\nstages: [extract_codes]\n"
)
A, B = "lr=0.001", "lr=0.002"


def start(folder: Path, *arguments: str, module: str = "orchestration") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment(COLUMNS="160"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *arguments: str, code: int = 0, module: str = "orchestration") -> str:
    process = start(folder, *arguments, module=module)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == code, output
    return output


def stages(folder: Path, sweep: str) -> dict[tuple[str, str], Any]:
    """(trial, stage) -> what status says."""
    found = json.loads(run(folder, "status", sweep, "--json"))
    return {
        (trial, stage): found["stages"][key]
        for trial, keys in found["trials"].items()
        for stage, key in keys.items()
    }


def wait_for(
    condition: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None
) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{what}: {process.communicate()[0]}")
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


@pytest.fixture(scope="module")
def cancelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of which first one trial was cancelled and then, seen by a test, all the rest."""
    folder = tmp_path_factory.mktemp("it's a place")
    (folder / "long.yaml").write_text(LONG)
    launch = start(folder, "long.yaml", "--jobs", "2", module="orchestration.launch")

    def steps(trial: str) -> int:
        return stages(folder, "long")[trial, "train_tokenizer"]["done"] or 0

    started = folder / "runs" / "stages" / "train_tokenizer"
    try:
        wait_for(lambda: len(list(started.glob("[!.]*"))) == 2, "launched", launch)
        wait_for(lambda: min(steps(A), steps(B)) > 5, "steps were made", launch)
        first = run(folder, "cancel", "long", B)
        assert "2 stages cancelled, 1 of them are running; 0 had ended before" in first
        assert stages(folder, "long")[A, "train_tokenizer"]["state"] == "RUNNING"
        table = run(folder, "status", "long")
        assert f"tokenizer of {B}: cancelled by " in table
        assert run(folder, "cancel", "long")
        output, _ = launch.communicate(timeout=SECONDS)
        assert launch.returncode == 130, output
    finally:
        launch.kill()
    return folder


@pytest.mark.slow
def test_a_cancelled_stage_has_a_checkpoint_and_was_tried_once(cancelled: Path) -> None:
    found = stages(cancelled, "long")
    for trial in (A, B):
        stage = found[trial, "train_tokenizer"]
        assert stage["state"] == "FAILED"
        assert stage["why"].startswith("cancelled by ")
        assert stage["attempts"] == 1
        assert StageFolder.at(cancelled / stage["folder"]).checkpoint_step() > 0
        assert found[trial, "extract_codes"]["state"] == "UPSTREAM_FAILED"


@pytest.mark.slow
def test_logs_name_their_stage_and_say_what_has_not_begun(cancelled: Path) -> None:
    text = run(cancelled, "logs", "long", A)
    assert "== train_tokenizer " in text
    assert "stopped on request after step" in text
    assert "has not started" in text
    followed = run(cancelled, "logs", "long", A, "train_tokenizer", "-f")  # it has ended
    assert "stopped on request after step" in followed


@pytest.mark.slow
def test_retry_continues_one_trial_from_its_checkpoint_and_logs_follow(cancelled: Path) -> None:
    (cancelled / "long.yaml").write_text("edited: meanwhile")
    plan = run(cancelled, "retry", "long", A, "--dry-run")
    assert "2 to run (1 tokenizer, 1 codes), 2 left as they are" in plan
    before = stages(cancelled, "long")[A, "train_tokenizer"]
    launch = start(cancelled, "retry", "long", A)

    def running() -> bool:
        return stages(cancelled, "long")[A, "train_tokenizer"]["done"] is not None

    wait_for(running, "the trial runs", launch)
    follower = start(cancelled, "logs", "long", A, "train_tokenizer", "-f", "--all")
    attempts = cancelled / before["folder"] / "attempts"
    resumed = json.loads((attempts / "002.json").read_text())
    assert resumed["first_step"] > 5
    run(cancelled, "cancel", "long", A)
    output, _ = launch.communicate(timeout=SECONDS)
    assert launch.returncode == 130, output
    text, _ = follower.communicate(timeout=SECONDS)
    assert text.count("stopped on request after step") == 2
    assert "attempt-001.log" in text
    assert "attempt-002.log" in text
    other = stages(cancelled, "long")[B, "train_tokenizer"]
    assert other["attempts"] == 1


@pytest.mark.slow
def test_a_bug_that_all_share_holds_the_sweep(tmp_path: Path) -> None:
    """Three workers raise the same: the fourth is not started, and resume says what waits."""
    (tmp_path / "bug.yaml").write_text(
        "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S, "
        "tokenizer.batch_size: 8, tokenizer.semantic_weight: 0}\n"
        "axes: {tokenizer.lr: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]}\nstages: [train_tokenizer]\n"
    )
    # Three processes cannot share a batch of 8, which only the workers find out.
    profile = tmp_path / "profile.yaml"
    profile.write_text("stages: {train_tokenizer: {processes: 3}}\n")
    options = ("--profile", "profile.yaml", "--jobs", "1")
    output = run(tmp_path, "bug.yaml", *options, code=1, module="orchestration.launch")
    assert "held: 3 stages failed with the same exception: ValueError: a batch of 8" in output
    assert "python -m orchestration resume bug --failed" in output
    found = sorted(stage["state"] for stage in stages(tmp_path, "bug").values())
    assert found == ["FAILED"] * 3 + ["WAITING"] * 2
    plan = run(tmp_path, "resume", "bug", "--dry-run")
    assert "2 to run (2 tokenizer), 3 left as they are" in plan
    plan = run(tmp_path, "resume", "bug", "--failed", "--dry-run")
    assert "5 to run" in plan
    plan = run(tmp_path, "resume", "bug", "--preempted", "--dry-run")
    assert "0 to run" in plan


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("status", "nosuch"), 2, "nosuch: never launched"),
        (("cancel", "nosuch"), 2, "nosuch: never launched"),
        (("resume", "nosuch"), 2, "nosuch: never launched"),
        (("doctor", "--backend", "slrum"), 2, "--backend slrum: not one of local"),
        (("doctor", "--runs-dir", "/proc/runs"), 3, "missing  runs directory"),
    ],
)
def test_wrong_requests(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    output = run(tmp_path, *arguments, code=code)
    assert message in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []
