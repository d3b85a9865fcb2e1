"""`decoder_scaling` on a real SLURM cluster on which everything goes wrong, one thing at a time.

Each time every stage completes once, the weights are those of an undisturbed run on one machine,
bit by bit, and MLflow has all of it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote

import pytest

from orchestration.backends.detached.journal import Journal
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.slurm.slurm_cluster import Cluster, preempting, run, wait_until
from tests.orchestration.programs import ROOT, call, environment

pytestmark = pytest.mark.cluster
SECONDS = 900.0
STEPS = {"tokenizer.steps": 300, "tokenizer.log_every": 5, "tokenizer.checkpoint_every": 50}
"""Enough for something to happen meanwhile."""
FEW = "[evaluate_reconstruction, extract_codes]"
"""Stages behind the tokenizer where it alone is struck; two sizes have all stages."""
STAGES_OF_ONE, RUNS_OF_ONE = 5, 7
STAGES_OF_TWO, RUNS_OF_TWO = 14, 17
PROFILE = """
default: {{time_minutes: 30, slurm: {{partition: {partition}}}}}
signal_delay_seconds: 20
setup: [{setup}]
"""
HOG = (
    'case "$SLURM_JOB_NAME" in *train_tokenizer*) [ -e {mark} ] || {{ touch {mark}; {python} -c '
    '"hog = bytearray(2**31); import time; time.sleep(600)" & sleep 60; }} ;; esac'
)
"""Before the worker, in the first job only."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Weights by folder name, as two processes on one machine make them without SLURM."""
    place = tmp_path_factory.mktemp("local")
    options = ("--backend", "local", "--jobs", "2")
    launch(place, "[S, B]", *options)
    return weights(place)


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Path:
    """Where a user works while a cluster runs."""
    return tmp_path


def profile(place: Path, partition: str = "main", setup: str = "") -> None:
    text = PROFILE.format(partition=partition, setup=json.dumps(setup) if setup else "")
    (place / "profile.yaml").write_text(text)


def words(place: Path, decoders: str, *options: str) -> list[str]:
    """A launch of the sweep with fewer decoders than it has, trained for longer."""
    text = (ROOT / "sweeps" / "decoder_scaling.yaml").read_text()
    assert "[S, B, L]" in text
    stages = "" if "B" in decoders else f"stages: {FEW}\n"
    (place / "decoder_scaling.yaml").write_text(text.replace("[S, B, L]", decoders) + stages)
    sets = [word for key, value in STEPS.items() for word in ("--set", f"{key}={value}")]
    given = ["decoder_scaling.yaml", "--scale", "smoke", "--yes", *sets, *options]
    return ["orchestration.launch", *given]


def launch(place: Path, decoders: str, *options: str) -> None:
    call(place, *words(place, decoders, *options), seconds=SECONDS, variables=alone())


def alone() -> dict[str, str]:
    # Not at import: the cluster says in the environment where it is.
    return environment(OMP_NUM_THREADS="1")


SLURM = ("--backend", "slurm", "--profile", "profile.yaml")


def folders(place: Path) -> list[StageFolder]:
    return [StageFolder.at(path) for path in sorted(place.glob("runs/stages/*/[!.]*"))]


def weights(place: Path) -> dict[str, bytes]:
    files = place.glob("runs/stages/*/*/out/model.safetensors")
    return {file.parent.parent.name: file.read_bytes() for file in files}


def tokenizers(place: Path) -> list[StageFolder]:
    return [f for f in folders(place) if f.path.parent.name == "train_tokenizer"]


def stall(place: Path, step: int = 60, count: int = 1) -> list[StageFolder]:
    """Stop the tokenizers in training as they come so far, for what follows may take time."""
    stalled: dict[Path, int] = {}

    def reached() -> bool:
        for folder in tokenizers(place):
            lease = folder.lease()
            there = lease is not None and lease.is_alive()
            if there and folder.path not in stalled and lease.progress.get("done", 0) >= step:
                os.kill(lease.pid, signal.SIGSTOP)
                stalled[folder.path] = lease.pid
        return len(stalled) == count

    wait_until(reached, f"step {step} of {count} tokenizers", SECONDS)
    return tokenizers(place)


def go_on(place: Path) -> None:
    """Wake those that were stalled, once their supervisors have been told to stop them.

    With SIGTERM, SLURM wakes them itself: they may have ended before.
    """
    stopping = "supervisor: stopping"

    def told(folder: StageFolder) -> bool:
        (log,) = (place / "runs" / "slurm").glob(f"*/{handle(place, folder)}_0_log.out")
        return log.read_text().count(stopping) == len(folder.attempts())

    wait_until(lambda: all(map(told, tokenizers(place))), "the warning")
    for folder in tokenizers(place):
        if (lease := folder.lease()) is not None:
            with suppress(ProcessLookupError):
                os.kill(lease.pid, signal.SIGCONT)


def handle(place: Path, folder: StageFolder) -> str:
    jobs = Journal(Store(place / "runs")).jobs()
    handle: str = jobs[folder.name.rpartition("-")[2]].handle
    return handle


def check(place: Path, stages: int, runs: int, expected: dict[str, bytes]) -> None:
    """Wait for the end, and compare."""

    def done() -> bool:
        failures = [failure for folder in folders(place) if (failure := folder.failure())]
        assert not failures, failures
        complete = [folder.is_complete() for folder in folders(place)]
        return complete == [True] * stages and not run("squeue", "--me", "--noheader")

    wait_until(done, f"{stages} complete stages", SECONDS)
    for folder in folders(place):
        outcomes = [attempt.outcome for attempt in folder.attempts()]
        assert outcomes.count("complete") == 1
        assert outcomes[-1] == "complete"
    made = weights(place)
    assert len(made) == (1 if stages == STAGES_OF_ONE else 4)
    assert [name for name in made if made[name] != expected[name]] == []
    with sqlite3.connect(place / "runs" / "mlflow.db") as store:
        query = "select status, count(*) from runs group by status"
        assert dict(store.execute(query).fetchall()) == {"FINISHED": runs}


def test_an_exclusive_job_preempts_the_array_twice(
    cluster: Cluster, place: Path, expected: dict[str, bytes]
) -> None:
    """With the user's signal, then without."""
    profile(place, partition="scavenge")
    launch(place, "[S, B]", *SLURM)
    for count, user_signal in enumerate([True, False], start=1):
        cluster.configure(user_signal=user_signal)
        trained = stall(place, step=60 * count, count=2)
        with preempting(lambda: go_on(place)):
            outcomes = [[a.outcome for a in folder.attempts()] for folder in trained]
            assert outcomes == [["interrupted"] * count] * 2
    check(place, STAGES_OF_TWO, RUNS_OF_TWO, expected)
    for folder in trained:
        assert folder.tries().counts == {"preempted": 1}  # the other one brought it forward
        first, second = [attempt.first_step for attempt in folder.attempts()[1:]]
        assert 60 <= first < 120 <= second


def test_a_node_goes_down(cluster: Cluster, place: Path, expected: dict[str, bytes]) -> None:
    profile(place)
    launch(place, "[S]", *SLURM)
    (trained,) = stall(place)
    node = run("squeue", "--noheader", "-o", "%N", "-j", handle(place, trained)).strip()
    cluster.power_off(node)
    try:
        check(place, STAGES_OF_ONE, RUNS_OF_ONE, expected)
    finally:
        cluster.power_on(node)
        cluster.wait_for_nodes()
    assert [attempt.outcome for attempt in trained.attempts()] == [None, "complete"]
    assert trained.attempts()[1].first_step >= 50


def test_a_stage_exceeds_its_time_limit(
    cluster: Cluster, place: Path, expected: dict[str, bytes]
) -> None:
    """It stalls until SLURM warns it, and goes on where it was."""
    profile(place)
    launch(place, "[S]", *SLURM)
    (trained,) = stall(place)
    limit = ("scontrol", "update", f"JobId={handle(place, trained)}")
    run(*limit, "TimeLimit=1")
    go_on(place)
    wait_until(lambda: trained.tries().counts == {"timed_out": 1}, "the end of the first attempt")
    run(*limit, "TimeLimit=30")
    check(place, STAGES_OF_ONE, RUNS_OF_ONE, expected)
    assert [attempt.outcome for attempt in trained.attempts()] == ["interrupted", "complete"]
    assert trained.tries().counts == {"timed_out": 1}


def test_a_stage_is_killed_for_memory(
    cluster: Cluster, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A process of its job that is not its own takes what the job may have.

    The policy is half the micro-batch, which adds gradients in another order: the undisturbed run
    to compare with is given the same.
    """
    local = tmp_path_factory.mktemp("half")
    halved = ("--set", "tokenizer.micro_batch=8")
    launch(local, "[S]", "--backend", "local", "--jobs", "2", *halved)
    expected = weights(local)
    mark = place / "hogged"
    profile(place, setup=HOG.format(mark=quote(str(mark)), python=quote(sys.executable)))
    launch(place, "[S]", *SLURM)
    wait_until(mark.exists, "the hog", SECONDS)
    check(place, STAGES_OF_ONE, RUNS_OF_ONE, expected)
    (trained,) = tokenizers(place)
    assert trained.tries().counts == {"out_of_memory": 1}


def test_the_accounting_database_is_down_and_the_launcher_is_killed(
    cluster: Cluster, place: Path, expected: dict[str, bytes]
) -> None:
    profile(place)
    cluster.stop_accounting()
    try:
        command = [sys.executable, "-m", *words(place, "[S]", *SLURM)]
        launcher = subprocess.Popen(command, cwd=place, env=alone())
        journal = place / "runs" / "journal"
        wait_until(lambda: len(list(journal.glob("*.json"))) >= 3, "the second array", 60)
        launcher.kill()
        assert launcher.wait() == -signal.SIGKILL
        launch(place, "[S]", *SLURM)
        (trained,) = tokenizers(place)
        wait_until(lambda: trained.is_complete(), "the tokenizer", SECONDS)
    finally:
        cluster.start_accounting()
    check(place, STAGES_OF_ONE, RUNS_OF_ONE, expected)
    assert [len(folder.attempts()) for folder in folders(place)] == [1] * STAGES_OF_ONE
