"""Two workers on one stage: rank 0 holds the lease and reports, both stop, nobody hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from gigatok.config import CNNConfig, ProbeConfig, SplitConfig, TokenizerConfig, TransformerSize
from gigatok.stages.linear_probe.spec import LinearProbeConfig
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from orchestration.runs.stage_records import Spec
from orchestration.runs.state import StageFolder, Store
from orchestration.tracking.spool import MetricPoint, read_spool
from tests.gigatok.process_pair import environment, free_port

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[2]
SIZE = TransformerSize(width=16, layers=1, heads=1)
SECONDS = 120


def training_stage(root: Path, **changes: Any) -> StageFolder:
    tokenizer = TokenizerConfig(
        encoder=SIZE,
        decoder=SIZE,
        cnn=CNNConfig(
            channels=8, multipliers=(1, 2), resblocks=1, mid_blocks=0, z_channels=8, groups=4
        ),
        num_latent_tokens=4,
        usage_window=64,
        semantic_weight=0,
        perceptual_weight=0,
        lr=2e-4,
        **{"steps": 6, "batch_size": 8, "log_every": 2, "codebook_size": 16, **changes},
    )
    split = SplitConfig(name="digits", split="train", image_size=8, images=32)
    config = TrainTokenizerConfig(train=split, tokenizer=tokenizer, seed=0)
    return stage(root, "train_tokenizer", config.model_dump(mode="json"))


def stage(root: Path, name: str, config: dict[str, Any]) -> StageFolder:
    spec = Spec(stage=name, version=1, key="0" * 16, readable="s", config=config, inputs={})
    return Store(root).create(spec)


def start(folder: StageFolder, *ranks: int) -> list[subprocess.Popen[bytes]]:
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", "orchestration.worker", str(folder.path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment(rank, port)},
        )
        for rank in ranks
    ]


def codes(workers: list[subprocess.Popen[bytes]]) -> list[int]:
    return [worker.wait(timeout=SECONDS) for worker in workers]


def run_alone(folder: StageFolder) -> int:
    command = [sys.executable, "-m", "orchestration.worker", str(folder.path)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=variables, timeout=SECONDS, check=False).returncode


def wait_for_step(
    folder: StageFolder, step: int, workers: list[subprocess.Popen[bytes]], attempt: int = 1
) -> None:
    """Wait for a step of an attempt; a killed one leaves its lease, with the steps it reached."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert [worker.poll() for worker in workers] == [None] * len(workers), folder.failure()
        lease = folder.lease()
        reached = 0 if lease is None else lease.progress.get("done", 0)
        if lease is not None and lease.attempt == attempt and reached >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


def losses(folder: StageFolder) -> dict[int, float]:
    points = [item for item in read_spool(folder) if isinstance(item, MetricPoint)]
    return {point.step: point.value for point in points if point.name == "train/loss"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_two_workers_leave_one_result(tmp_path: Path) -> None:
    folder = training_stage(tmp_path / "two")
    assert codes(start(folder, 0, 1)) == [0, 0]
    assert folder.state() == "COMPLETE"
    assert len(folder.attempts()) == 1
    pictures = [f"reconstructions-{step:08d}.png" for step in (1, 3, 6)]
    assert names(folder.path / "spool") == ["001.jsonl", *pictures]
    assert names(folder.path / "logs") == ["attempt-001.log", "rank-001-attempt-001.log"]
    assert names(folder.out) == ["model.json", "model.safetensors"]
    single = training_stage(tmp_path / "one")
    assert run_alone(single) == 0
    assert losses(folder) == pytest.approx(losses(single), rel=1e-4)
    weights, expected = (load_file(one.out / "model.safetensors") for one in (folder, single))
    for name in expected:
        assert weights[name] == pytest.approx(expected[name], abs=1e-5), name
    assert codes(start(folder, 0, 1)) == [0, 0]
    assert len(folder.attempts()) == 1


@pytest.mark.slow
def test_a_stop_of_one_worker_stops_both_and_one_goes_on(tmp_path: Path) -> None:
    folder = training_stage(tmp_path, steps=400, log_every=1)
    workers = start(folder, 0, 1)
    wait_for_step(folder, 3, workers)
    workers[1].send_signal(signal.SIGTERM)
    assert codes(workers) == [130, 130]
    assert folder.state() == "WAITING"
    (attempt,) = folder.attempts()
    assert attempt.outcome == "interrupted"
    reached = folder.checkpoint_step()
    assert reached >= 3
    assert max(losses(folder)) == reached
    assert run_alone(folder) == 0
    assert folder.attempts()[1].first_step == reached
    assert list(losses(folder)) == list(range(1, 401))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_worker_ends_the_other(tmp_path: Path, victim: int) -> None:
    folder = training_stage(tmp_path, steps=10**6, log_every=1, checkpoint_every=2)
    workers = start(folder, 0, 1)
    wait_for_step(folder, 5, workers)
    workers[victim].kill()
    survivor = workers[1 - victim]
    assert survivor.wait(timeout=SECONDS) != 0
    assert workers[victim].wait() == -signal.SIGKILL
    failure = folder.failure()  # whoever survives says what happened
    assert failure is not None
    assert (folder.state(), failure.kind) == ("FAILED", "killed")
    before = folder.checkpoint_step()
    assert before >= 4
    workers = start(folder, 0, 1)
    wait_for_step(folder, before + 2, workers, attempt=2)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    assert codes(workers) == [130, 130]
    assert folder.attempts()[1].first_step == before


@pytest.mark.slow
def test_a_stage_that_is_not_parallel_is_left_to_rank_0(tmp_path: Path) -> None:
    config = LinearProbeConfig(probe=ProbeConfig(), seed=0)
    folder = stage(tmp_path, "linear_probe", config.model_dump(mode="json"))
    assert codes(start(folder, 1)) == [0]
    assert folder.attempts() == []
    (failed,) = codes(start(folder, 0))  # without waiting for rank 1; it lacks its inputs
    assert failed == 1
    failure = folder.failure()
    assert failure is not None
    assert "extract_codes" in failure.message


@pytest.mark.slow
def test_a_worker_that_cannot_join_the_others_says_why(tmp_path: Path) -> None:
    folder = training_stage(tmp_path)
    ranks = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    result = subprocess.run(
        [sys.executable, "-m", "orchestration.worker", str(folder.path)],
        env={**os.environ, **ranks, "PYTHONPATH": str(ROOT), "GIGATOK_MEETING": "/dev/full/x"},
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 1
    failure = folder.failure()
    assert failure is not None
    assert failure.message == "DistStoreError: Not a directory"
    assert folder.attempts() == []
