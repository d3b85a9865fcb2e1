"""A worker that sleeps at any file operation and wakes behind its successor harms nothing."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from gigatok.stages import STAGES
from orchestration.runs.state import StageFolder, Store
from tests.orchestration import stopped_worker
from tests.orchestration.test_launch import run

pytestmark = pytest.mark.slow
MODELS = ("tokenizer", "generator")
PROBED = "tokenizer_probe.features=encoder"
SEARCH = {"search": "grid", "coarse": 3, "refine": 1, "num_images": 32}
"""Search for guidance over few scales, as each stop of a worker repeats it."""
PATIENCE_SECONDS = 300.0
"""For a worker to end: a guidance search takes a minute where much else runs."""
POINTS = int(os.environ.get("GIGATOK_STOP_POINTS", "2"))
"""Stop points per kind of stage, drawn with a fixed seed; 0: every one."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A runs directory in which a stage of every kind is complete."""
    folder = tmp_path_factory.mktemp("finished")
    common = ("decoder_scaling", "--scale", "smoke", "--set", "tokenizer.decoder=S")
    guidance = (f"guidance.{key}={value}" for key, value in SEARCH.items())
    launch(folder, *common, *(word for one in (*guidance, PROBED) for word in ("--set", one)))
    weights = {kind: f"runs/stages/train_{kind}/*/out/model.safetensors" for kind in MODELS}
    found = {kind: next(folder.glob(pattern)) for kind, pattern in weights.items()}
    adopted = (f"adopt.{kind}={file.relative_to(folder)}" for kind, file in found.items())
    launch(folder, *common, *(word for one in adopted for word in ("--set", one)))
    return Store(folder / "runs")


def launch(folder: Path, *arguments: str) -> None:
    result = run(folder, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def fresh(finished: Store, root: Path, kind: str) -> StageFolder:
    """A copy of the runs directory in which one stage has not begun."""
    shutil.copytree(finished.stages, root / "stages")
    path = next((root / "stages" / kind).glob("[!.]*"))
    for entry in path.iterdir():
        if entry.name != "spec.json":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in ("attempts", "spool", "logs"):
        (path / name).mkdir()
    return StageFolder.at(path)


def hashes(folder: StageFolder) -> dict[str, str]:
    files = sorted(path for path in folder.out.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_whole(folder: StageFolder, expected: dict[str, str]) -> None:
    """Everything is as an undisturbed worker leaves it, but for more attempts."""
    assert folder.state() == "COMPLETE"
    assert folder.failure() is None
    assert folder.damage(thorough=True) is None
    assert hashes(folder) == expected
    names = {path.name for path in folder.path.iterdir()}
    assert names <= {".lock", "DONE", "attempts", "logs", "out", "spec.json", "spool"}
    stopped_worker.wait_for(lambda: folder.works() == [])  # removed behind the sleeper's end


def is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False  # it ended just now


@pytest.mark.parametrize("kind", STAGES)
def test_a_worker_that_wakes_behind_its_successor_changes_nothing(
    finished: Store, tmp_path: Path, kind: str
) -> None:
    reference = fresh(finished, tmp_path / "reference", kind)
    alone = stopped_worker.start(reference.path, tmp_path / "alone.log")
    alone.join(PATIENCE_SECONDS)
    assert alone.exitcode == 0, (tmp_path / "alone.log").read_text()
    expected = hashes(reference)
    assert_whole(reference, expected)
    count = stopped_worker.operations(tmp_path / "alone.log")
    every = range(1, count + 1)
    points = sorted(random.Random(kind).sample(every, POINTS)) if POINTS else every
    for point in points:
        folder = fresh(finished, tmp_path / str(point), kind)
        where = f"{kind}, stopped at operation {point} of {count}"
        stop_and_succeed(folder, tmp_path / str(point), point)
        try:
            assert_whole(folder, expected)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error} {_logs(folder)}") from error
        shutil.rmtree(tmp_path / str(point))


def stop_and_succeed(folder: StageFolder, root: Path, point: int) -> None:
    """Stop a worker, let a successor complete the stage, and wake the first one."""
    sleeper = stopped_worker.start(folder.path, root / "sleeper.log", point)
    pid = sleeper.pid
    assert pid is not None
    try:
        stopped_worker.wait_for(lambda: not sleeper.is_alive() or is_stopped(pid))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not folder.is_complete() and time.monotonic() < deadline:
            successor = stopped_worker.start(folder.path, root / "successor.log")
            successor.join(PATIENCE_SECONDS)
        assert folder.is_complete(), _logs(folder)
        if sleeper.is_alive():  # or it had fewer operations this time: heartbeats vary
            os.kill(pid, signal.SIGCONT)
        sleeper.join(PATIENCE_SECONDS)
        assert sleeper.exitcode in (0, 75), f"{point}: {sleeper.exitcode} {_logs(folder)}"
    finally:
        if sleeper.is_alive():
            sleeper.kill()


def _logs(folder: StageFolder) -> str:
    return "".join(f"\n== {log.name}\n{log.read_text()[-3000:]}" for log in folder.logs())
