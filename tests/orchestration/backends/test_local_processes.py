"""Several processes of a stage on this machine: their GPUs, and what the end of one does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

from orchestration.backends import connect, workers
from orchestration.backends.base import Backend, Job
from orchestration.backends.local import LocalStage
from orchestration.policy import faults
from orchestration.policy.profile import Profile, Request
from orchestration.runs.stage_records import Attempt
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.sites import SECONDS, outcomes, wait_for_end
from tests.orchestration.test_worker_ranks import training_stage

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[3]
GPUS = "90,91,92,93"
"""Names that no machine has: the backend shares them out, and torch computes on the CPU."""
ENDLESS = {"steps": 10**6, "checkpoint_every": 10**6, "log_every": 1}
SHORT = {"steps": 60, "checkpoint_every": 5, "log_every": 1}
ONE, TWO = Request(), Request(processes=2)
SWEEP = (
    "question: q\nscale: smoke\n"
    "set: {tokenizer.encoder: S, tokenizer.decoder: S, tokenizer.steps: 300, "
    "tokenizer.checkpoint_every: 1000000, tokenizer.log_every: 1}\n"
    "axes: {tokenizer.lr: [1e-4, 2e-4]}\nstages: [train_tokenizer]\n"
)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def step(folder: StageFolder) -> int:
    lease = folder.lease()
    return 0 if lease is None else int(lease.progress.get("done", 0))


def gpus(folder: StageFolder) -> list[str]:
    """Of each attempt."""
    return [attempt.provenance["visible_gpus"] for attempt in folder.attempts()]


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", GPUS)
    backend = connect("local", None, Profile(), Store(tmp_path))
    yield backend
    backend.close()


def end(backend: Backend, job: Job) -> None:
    backend.cancel(job)
    wait_for_end(backend, job)


def test_stages_at_once_share_no_gpu(tmp_path: Path, four_gpus: Backend) -> None:
    folders = [training_stage(tmp_path / name, **ENDLESS) for name in "abc"]
    narrow, wide = four_gpus.submit(folders[0], ONE), four_gpus.submit(folders[1], TWO)
    assert four_gpus.free_slots() == 1
    late = four_gpus.submit(folders[2], TWO)
    assert four_gpus.free_slots() == 0
    wait_until(lambda: min(step(folder) for folder in folders[:2]) > 5, "two stages run")
    assert four_gpus.poll(late) is None
    assert folders[2].attempts() == []
    end(four_gpus, narrow)
    assert four_gpus.free_slots() == 0, "nobody passes the stage that waits"
    wait_until(lambda: four_gpus.poll(late) is None and step(folders[2]) > 5, "the third runs")
    assert [gpus(folder) for folder in folders] == [["90"], ["91,92"], ["90,93"]]
    assert [[a.processes for a in f.attempts()] for f in folders] == [[1], [2], [2]]
    for job in (wide, late):
        end(four_gpus, job)
    assert four_gpus.free_slots() == 4


def test_a_stage_that_waits_can_be_cancelled(tmp_path: Path, four_gpus: Backend) -> None:
    folders = [training_stage(tmp_path / name, **ENDLESS) for name in "ab"]
    first, second = (four_gpus.submit(folder, Request(processes=3)) for folder in folders)
    four_gpus.cancel(second)
    ended = wait_for_end(four_gpus, second)
    assert faults.kind_of(folders[1], ended) == "preempted"
    assert four_gpus.free_slots() == 1
    end(four_gpus, first)
    assert folders[1].attempts() == []


def local(root: Path) -> Backend:
    return connect("local", 1, Profile(), Store(root))


def processes(job: Job) -> list[BaseProcess]:
    """The workers of a job that live, and nobody else's: other tests leave servers behind."""
    stage: LocalStage = job.handle
    assert stage.team is not None
    return stage.team.running()


def run(backend: Backend, folder: StageFolder, job: Job | None = None) -> list[str | None]:
    """Run a stage as the platform does, until it is complete; the kinds of ends before."""
    kinds: list[str | None] = []
    while True:
        ended = wait_for_end(backend, job or backend.submit(folder, TWO))
        job = None
        if folder.is_complete():
            return kinds
        kinds.append(faults.kind_of(folder, ended))
        failure = faults.after_end(folder, ended, Profile(default=TWO))
        assert failure is None, failure


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, float]:
    """Weights of the short stage, and its seconds."""
    root = tmp_path_factory.mktemp("undisturbed")
    backend, folder = local(root), training_stage(root, **SHORT)
    assert run(backend, training_stage(root / "first")) == []  # the server has imported torch
    started = time.monotonic()
    assert run(backend, folder) == []
    return weights(folder), time.monotonic() - started


def weights(folder: StageFolder) -> bytes:
    return (folder.out / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_death_of_rank_1_fails_the_attempt(
    tmp_path: Path, undisturbed: tuple[bytes, float]
) -> None:
    backend, folder = local(tmp_path), training_stage(tmp_path, **SHORT)
    job = backend.submit(folder, TWO)
    wait_until(lambda: step(folder) >= 10, "it runs")
    lease = folder.lease()
    assert lease is not None
    (other,) = (process for process in processes(job) if process.pid != lease.pid)
    other.kill()
    assert run(backend, folder, job) == ["killed"]
    assert outcomes(folder) == ["failed", "complete"]
    assert "/gloo/" in folder.log(1).read_text(), "rank 0 says what it met"
    assert weights(folder) == undisturbed[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_whichever_rank_is_killed_whenever_the_result_is_the_same(
    tmp_path: Path, undisturbed: tuple[bytes, float], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # A partner that never came is waited for; here not for a minute.
    monkeypatch.setattr(workers, "PARTNER_SECONDS", 5.0)
    chance = random.Random(seed)
    backend, folder = local(tmp_path), training_stage(tmp_path, **SHORT)
    job = backend.submit(folder, TWO)
    moment = time.monotonic() + chance.uniform(0, 0.9 * undisturbed[1])
    # Beside less other work it runs faster than the undisturbed one did, and may end before.
    wait_until(lambda: time.monotonic() >= moment or step(folder) >= 50, "its moment")
    victims = processes(job)
    assert victims, "it has ended already"
    chance.choice(victims).kill()
    run(backend, folder, job)
    assert folder.lease() is None
    assert weights(folder) == undisturbed[0]


# From the command line


def command(place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": GPUS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """Wait for a command; its workers stop when it is killed."""
    try:
        return process.communicate(timeout=SECONDS)[0]
    finally:
        process.kill()


def alive(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that nobody has waited for does not."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def together(attempts: list[Attempt]) -> bool:
    """Tell whether two attempts ran at the same time."""
    first, second = sorted(attempts, key=lambda attempt: attempt.started)
    return first.ended is None or first.ended > second.started


@pytest.mark.slow
def test_ctrl_c_stops_all_ranks_of_two_stages_and_resume_goes_on(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(SWEEP)
    launch = command(tmp_path, "orchestration.launch", "two.yaml", "--gpus-per-stage", "2")
    root = tmp_path / "runs" / "stages" / "train_tokenizer"

    def folders() -> list[StageFolder]:
        return [StageFolder.at(path) for path in sorted(root.glob("[!.]*"))]

    try:
        wait_until(lambda: len(folders()) == 2 and min(map(step, folders())) > 5, "both run")
        started = psutil.Process(launch.pid).children(recursive=True)
        os.killpg(launch.pid, signal.SIGINT)  # as a terminal does
        output = output_of(launch)
    finally:
        launch.kill()
    assert launch.returncode == 130, output
    assert [process for process in started if alive(process)] == []
    assert sorted(gpus(folder)[0] for folder in folders()) == ["90,91", "92,93"]
    assert together([folder.attempts()[0] for folder in folders()])
    for folder in folders():
        assert outcomes(folder) == ["interrupted"]
        assert folder.checkpoint_step() > 5
    plan = command(tmp_path, "orchestration", "resume", "two", "--dry-run")
    assert "GPUs" in output_of(plan), "as launched"
    resume = command(tmp_path, "orchestration", "resume", "two", "--gpus-per-stage", "1")
    output = output_of(resume)
    assert resume.returncode == 0, output
    for folder in folders():
        assert [attempt.processes for attempt in folder.attempts()] == [2, 1]
        assert folder.attempts()[1].first_step > 5


def test_a_plan_shows_how_many_gpus_a_stage_has(tmp_path: Path) -> None:
    words = ("orchestration", "plan", "decoder_scaling", "--scale", "smoke")
    more = ("--gpus-per-stage", "2", "--json")
    process = command(tmp_path, *words, *more)
    output = output_of(process)
    assert process.returncode == 0, output
    stages = json.loads(output)["stages"].values()
    found = {stage["stage"]: stage["cost"]["gpus"] for stage in stages}
    assert found["train_tokenizer"] == found["evaluate_generation"] == 2
    assert found["extract_codes"] == found["linear_probe"] == 1
