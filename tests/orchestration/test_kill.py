"""SIGKILL at random moments: relaunching finishes, bit by bit and point by point the same."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gigatok.claims.claim import Claimed
from gigatok.claims.verdicts import verdicts
from orchestration.execution.progress import survey
from orchestration.launching.claim_results import results_of
from orchestration.launching.claimed import read_claimed
from orchestration.launching.history import newest_launch
from orchestration.launching.launched import restored
from orchestration.runs.state import StageFolder, Store

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
CAMPAIGNS = int(os.environ.get("GIGATOK_KILL_CAMPAIGNS", "1"))
KILLS = int(os.environ.get("GIGATOK_KILLS", "5"))
"""Of each campaign."""
ROUND_KILLS = int(os.environ.get("GIGATOK_KILLS", "3"))
"""Of the study whose claims ask for more seeds."""
WAIT_SECONDS = 900.0
"""After which a launch is taken to hang, on a machine that others use as well."""
VICTIMS = ("worker", "server", "launcher", "all", "group")
SWEEP = ("decoder_scaling", "--scale", "smoke")
Hashes = dict[str, str]
Points = set[tuple[str, str, int]]


def launch(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return start(folder, "-m", "orchestration.launch", *(arguments or SWEEP))


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    log = (folder / "launch.log").open("ab")
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=log,
        start_new_session=True,  # so that all of it can be killed as a group
    )


def finish(folder: Path, process: subprocess.Popen[bytes]) -> None:
    assert process.wait(timeout=WAIT_SECONDS) == 0, (folder / "launch.log").read_text()[-5000:]


def folders(folder: Path) -> list[StageFolder]:
    found = sorted((folder / "runs" / "stages").glob("*/*"))
    return [StageFolder.at(path) for path in found if (path / "spec.json").exists()]


def artifacts(folder: Path) -> Hashes:
    """Hash of every tensor and array file that a stage left."""
    files = [file for one in folders(folder) for file in sorted(one.out.iterdir())]
    return {
        f"{file.parent.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.suffix in (".safetensors", ".npy")
    }


def points(folder: Path) -> Points:
    """(run, metric, step) of all curves but the machine's own, each required to be there once."""
    with sqlite3.connect(folder / "runs" / "mlflow.db") as store:
        rows = store.execute(
            "select r.name, m.key, m.step, count(*) from metrics m join runs r "
            "on r.run_uuid = m.run_uuid where m.key not like 'system/%' "
            "group by m.run_uuid, m.key, m.step"
        ).fetchall()
        running = store.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    assert running == (0,)
    assert {row[3] for row in rows} == {1}
    return {(row[0], row[1], row[2]) for row in rows}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hashes, Points, float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    finish(folder, launch(folder))
    return artifacts(folder), points(folder), time.monotonic() - started


def kill_workers(folder: Path) -> int:
    """SIGKILL every process that holds a lease; returns how many there were."""
    leases = [lease for one in folders(folder) if (lease := one.lease()) is not None]
    killed = 0
    for lease in leases:
        if lease.is_alive():
            os.kill(lease.pid, signal.SIGKILL)
            killed += 1
    return killed


def kill_server(launcher: subprocess.Popen[bytes]) -> int:
    """SIGKILL the process that forks workers; returns how many there were."""
    children = psutil.Process(launcher.pid).children() if launcher.poll() is None else []
    killed = 0
    for child in children:
        with suppress(psutil.Error):  # one that ends just now
            if "forkserver" in " ".join(child.cmdline()):
                child.kill()
                killed += 1
    return killed


def strike(victim: str, folder: Path, launcher: subprocess.Popen[bytes]) -> int:
    """Kill one kind of process; returns how many there were."""
    if victim == "worker":
        return kill_workers(folder)
    if victim == "server":
        return kill_server(launcher)
    alive = launcher.poll() is None
    if victim == "group" and alive:
        os.killpg(launcher.pid, signal.SIGKILL)
    launcher.kill()
    launcher.wait()
    return alive + (kill_workers(folder) if victim == "all" else 0)


@pytest.mark.parametrize("campaign", range(CAMPAIGNS))
def test_killed_sweeps_end_in_the_same_bits_and_points(
    tmp_path: Path, undisturbed: tuple[Hashes, Points, float], campaign: int
) -> None:
    hashes, curves, seconds = undisturbed
    draw = random.Random(campaign)
    process = launch(tmp_path)
    kills = 0
    deadline = time.monotonic() + WAIT_SECONDS
    # The later strikes find little left to kill: not every one counts.
    for _ in range(2 * KILLS):
        time.sleep(draw.uniform(0.5, max(1.0, 2 * seconds / KILLS)))
        kills += strike(draw.choice(VICTIMS), tmp_path, process) > 0
        if process.poll() is not None:
            process = launch(tmp_path)
        if kills == KILLS:
            break
    while process.wait(timeout=WAIT_SECONDS) != 0:
        # Three kills in a row without a newer checkpoint fail a stage; a user launches again.
        assert time.monotonic() < deadline, (tmp_path / "launch.log").read_text()[-5000:]
        process = launch(tmp_path)
    finish(tmp_path, launch(tmp_path))
    print(f"campaign {campaign}: {kills} kills")
    assert kills > 0
    assert artifacts(tmp_path) == hashes
    assert points(tmp_path) == curves
    for one in folders(tmp_path):
        assert one.state() == "COMPLETE"
        assert one.works() == []
        assert one.lease() is None


ROUNDS = """question: Does it?
scale: smoke
axes: {tokenizer.decoder: [S, B]}
set: {tokenizer.encoder: S, tokenizer.semantic_weight: 0}
seeds: {start: 2, until: decided, at_most: 4}
stages: [evaluate_reconstruction]
claims:
  higher: psnr at tokenizer.decoder=B is higher than at S
  same: ssim at tokenizer.decoder=B is within 0.001 of S
"""


@dataclass(frozen=True)
class Outcome:
    """What a study of rounds has left: everything but times must be equal."""

    records: set[str]
    seeds: list[str]
    keys: set[str]
    verdicts: list[tuple[str, str, float | None]]
    claims: list[Claimed]
    hashes: Hashes


def studied(folder: Path) -> Outcome:
    store = Store(folder / "runs")
    launched = newest_launch(store, "rounds")
    plan = restored(launched, store)
    results = results_of(survey(plan, store), {claim.metric for claim in plan.sweep.claims})
    found = verdicts(plan.sweep.claims, results, plan.sweep.looks)
    return Outcome(
        records={file.name for file in (folder / "runs/sweeps/rounds").glob("*.json")},
        seeds=list(launched.trials),
        keys=set(launched.stages),
        verdicts=[(v.claim.name, v.decision, v.p) for v in found],
        claims=[one.model_copy(update={"at": 0.0}) for one in read_claimed(plan, store)],
        hashes=artifacts(folder),
    )


def run_rounds(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "rounds.yaml").write_text(ROUNDS)
    # As the command does it, without the figure, which takes as long as a round.
    call = "from orchestration import Study; exit(Study('rounds.yaml').run(jobs=2).exit_code)"
    return start(folder, "-c", call)


def run_disturbed(folder: Path, draw: random.Random, seconds: float, most: int) -> int:
    """Run the study to its end, whose group of processes is killed on the way.

    Returns:
        Number of kills, `most` at most.
    """
    kills = 0
    deadline = time.monotonic() + 3 * WAIT_SECONDS
    while time.monotonic() < deadline:
        process = run_rounds(folder)
        try:
            patience = draw.uniform(0.05, seconds / 2) if kills < most else WAIT_SECONDS
            code = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            kills += strike("group", folder, process)
            continue
        # Kills in a row without a newer checkpoint fail a stage; a user runs it again.
        if code == 0:
            return kills
    raise AssertionError((folder / "launch.log").read_text()[-5000:])


def test_killed_rounds_add_the_same_seeds(tmp_path_factory: pytest.TempPathFactory) -> None:
    calm = tmp_path_factory.mktemp("calm")
    started = time.monotonic()
    finish(calm, run_rounds(calm))
    seconds = time.monotonic() - started
    expected = studied(calm)
    assert len(expected.records) > 1, "a round was added"
    assert [one.results for one in expected.claims] == [0] * len(expected.claims)
    draw, kills = random.Random(0), 0
    while kills < ROUND_KILLS:
        # A study may be over before it was killed so often: then another is begun.
        folder = tmp_path_factory.mktemp("killed")
        started = time.monotonic()
        kills += run_disturbed(folder, draw, seconds, ROUND_KILLS - kills)
        # The first one may have run while the machine was busy with something else.
        seconds = min(seconds, time.monotonic() - started)
        assert studied(folder) == expected
        lines = (folder / "runs/sweeps/rounds/claims.jsonl").read_text().splitlines()
        assert len(lines) == len(expected.claims)
        for one in folders(folder):
            outcomes = [attempt.outcome for attempt in one.attempts()]
            assert outcomes.count("complete") == 1, "no stage is run twice"
            assert outcomes[-1] == "complete"
    print(f"{kills} kills of a study that takes {seconds:.0f} s undisturbed")


def test_two_launches_share_every_stage(tmp_path: Path) -> None:
    """Each shared stage has exactly one attempt, however the two launches interleave."""
    first = launch(tmp_path)
    second = launch(tmp_path, "tokenizer_scaling", "--scale", "smoke")
    finish(tmp_path, first)
    finish(tmp_path, second)
    attempts = {one.path.name: len(one.attempts()) for one in folders(tmp_path)}
    assert set(attempts.values()) == {1}, attempts
    keys = [one.spec().key for one in folders(tmp_path)]
    assert len(keys) == len(set(keys))
    points(tmp_path)


def test_a_worker_that_always_dies_is_given_up(tmp_path: Path) -> None:
    """Attempts without progress are limited, and the failure says what happened."""
    sweep = tmp_path / "one.yaml"
    sweep.write_text(
        "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S, "
        "tokenizer.steps: 100000, tokenizer.checkpoint_every: 100000}\n"
        "axes: {tokenizer.semantic_weight: [0]}\nstages: [train_tokenizer]\n"
    )
    process = launch(tmp_path, "one.yaml")
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        kill_workers(tmp_path)
        time.sleep(0.2)
    assert process.wait(timeout=60) == 1
    assert "ended without a result (signal 9)" in (tmp_path / "launch.log").read_text()
    (one,) = folders(tmp_path)
    assert one.state() == "FAILED"
