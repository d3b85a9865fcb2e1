"""Whole sweeps on a real SLURM cluster: submitted, left alone, interrupted, limited, watched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.backends.detached.journal import CONTROLLER, Journal, Submission
from orchestration.backends.snapshot import PARTS
from orchestration.launching.history import all_launches
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.slurm.slurm_cluster import Cluster, run, wait_until
from tests.orchestration.programs import ROOT, call, environment

pytestmark = pytest.mark.cluster
PROFILE = "default: {time_minutes: 30, slurm: {partition: main}}\nmax_parallel: 4\n"
SWEEP = """
question: Does it run?
scale: smoke
set: {{tokenizer.semantic_weight: 0, tokenizer.encoder: S, tokenizer.decoder: S}}
axes: {{{axes}}}
stages: [{stages}]
seeds: {seeds}
"""
SECONDS = 900.0


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Path:
    """Where a user works, with a profile."""
    folder = tmp_path / "a user's runs"
    folder.mkdir()
    (folder / "profile.yaml").write_text(PROFILE)
    return folder


def sweep(place: Path, stages: str, seeds: list[int] | str, axes: str = "") -> None:
    text = SWEEP.format(stages=stages, seeds=seeds, axes=axes)
    (place / "study.yaml").write_text(text)


def words(*options: str, sweep: str = "study.yaml") -> list[str]:
    where = ["--backend", "slurm", "--profile", "profile.yaml", "--yes"]
    return ["orchestration.launch", sweep, *where, *options]


def alone(code: Path = ROOT, **changes: str) -> dict[str, str]:
    return environment(code, OMP_NUM_THREADS="1", **changes)


def launch(place: Path, *options: str, expect: int = 0) -> str:
    given = words(*options)
    return call(place, *given, code=expect, seconds=SECONDS, variables=alone()).stdout


def queue() -> list[tuple[str, str, str]]:
    """Handle, name and state of all jobs that are not over."""
    lines = run("squeue", "--me", "--array", "-h", "-o", "%i|%j|%T").splitlines()
    return [(handle, name, state) for handle, name, state in (line.split("|") for line in lines)]


def stage_jobs() -> list[tuple[str, str, str]]:
    return [job for job in queue() if "-controller-" not in job[1]]


def folders(place: Path) -> list[StageFolder]:
    return [StageFolder.at(path) for path in sorted(place.glob("runs/stages/*/[!.]*"))]


def arrays(place: Path) -> list[Submission]:
    journal = Journal(Store(place / "runs")).submissions()
    return [entry for entry in journal if entry.kind != CONTROLLER]


def states(place: Path) -> list[str]:
    return sorted(folder.state() for folder in folders(place))


def wait_for_completion(place: Path, count: int, seconds: float = SECONDS) -> None:
    """Of all stages, and of the jobs that look after them."""

    def done() -> bool:
        assert "FAILED" not in states(place), [f.failure() for f in folders(place)]
        return states(place) == ["COMPLETE"] * count and not queue()

    wait_until(done, f"{count} complete stages", seconds)


def runs_in_mlflow(place: Path) -> dict[str, int]:
    with sqlite3.connect(place / "runs" / "mlflow.db") as store:
        query = "select status, count(*) from runs group by status"
        return dict(store.execute(query).fetchall())


def test_a_sweep_goes_on_alone_and_from_the_code_as_it_was(place: Path) -> None:
    """The launcher leaves, the source is broken, and every stage and run still completes."""
    code = place / "code"
    for part in PARTS:
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, code / part)
    options = ["--scale", "smoke", "--set", "tokenizer.decoder=S"]
    names: list[set[str]] = []
    for _ in range(2):
        # Typed in the folder of the source, as the README says.
        there = ("--profile", "../profile.yaml", "--runs-dir", "../runs")
        given = words(*options, *there, sweep="decoder_scaling")
        done = call(code, *given, seconds=SECONDS, variables=alone(code))
        names.append({array.name for array in arrays(place)})
    assert len(names[0]) == 8
    assert names[1] <= names[0]
    assert "stages are queued or running already, and were left alone" in done.stdout
    for file in ("orchestration/worker.py", "gigatok/__init__.py", "orchestration/__init__.py"):
        (code / file).write_text("raise RuntimeError('edited after the launch')\n")
    wait_for_completion(place, 8)
    assert all(len(folder.attempts()) == 1 for folder in folders(place))
    assert runs_in_mlflow(place) == {"FINISHED": 10}
    assert Journal(Store(place / "runs")).jobs() == {}


def test_the_controller_begins_the_round_of_seeds_that_is_due(place: Path) -> None:
    """Nobody stays: the third seeds come once the first two have decided nothing."""
    sweep(
        place,
        "evaluate_reconstruction",
        "{start: 2, until: decided, at_most: 3}",
        axes="tokenizer.lr: [2.0e-4, 2.1e-4]",
    )
    with (place / "study.yaml").open("a") as file:
        file.write("claims: {faster: psnr at tokenizer.lr=2.1e-4 is higher than at 2.0e-4 by at ")
        file.write("least 0.05}\n")
    launch(place)
    # Two sweeps, one after the other.
    wait_for_completion(place, 13, 2 * SECONDS)
    assert all(len(folder.attempts()) == 1 for folder in folders(place))
    plans = list(all_launches(Store(place / "runs"), "study"))
    assert [len(plan.trials) for plan in plans] == [6, 4]
    assert set(plans[1].stages) < set(plans[0].stages)
    # The runs of both plans.
    assert runs_in_mlflow(place) == {"FINISHED": 2 + 4 + 6 + 13}
    again = launch(place)
    assert "0 to run" in again
    assert "(before any result existed" in again


def test_what_behind_a_failure_is_given_up_and_the_rest_completes(place: Path) -> None:
    sweep(place, "extract_codes", [0], axes="tokenizer.lr: [2.0e-4, 1.0e+30, 3.0e-4]")
    said = launch(place, "--watch", expect=1)
    assert "1 failed" in said
    assert "1 behind them" in said
    assert states(place) == ["COMPLETE"] * 4 + ["FAILED", "WAITING"]
    wait_until(lambda: not queue(), "the end of all jobs")
    assert states(place) == ["COMPLETE"] * 4 + ["FAILED", "WAITING"]
    (failed,) = [folder for folder in folders(place) if folder.state() == "FAILED"]
    assert len(failed.attempts()) == 2


def test_what_exceeds_the_limit_of_submitted_jobs_is_submitted_later(place: Path) -> None:
    sweep(place, "evaluate_reconstruction", [0, 1, 2])
    user = os.environ.get("USER", "root")
    limit = ("sacctmgr", "-i", "modify", "user", user, "set")
    run(*limit, "MaxSubmitJobs=4")
    try:
        said = launch(place)
        assert "stages wait for these, or for room in the queue" in said
        assert len(queue()) <= 4
        wait_for_completion(place, 7)
    finally:
        run(*limit, "MaxSubmitJobs=-1")
    assert all(len(folder.attempts()) == 1 for folder in folders(place))


def test_a_cancelled_job_stays_cancelled_until_the_user_launches_again(place: Path) -> None:
    # Long enough that the last one has not ended when the launcher returns.
    sweep(place, "extract_codes", [0, 1, 2], axes="tokenizer.steps: [200]")
    launch(place, "--jobs", "2")  # one tokenizer at a time, and one extraction
    (tokenizers,) = [array for array in arrays(place) if array.kind == "train_tokenizer"]
    victim = StageFolder.at(place / "runs" / "stages" / tokenizers.folders[-1])
    run("scancel", f"{tokenizers.job}_2")
    wait_until(lambda: not queue(), "the end of all jobs", SECONDS)
    assert states(place) == ["COMPLETE"] * 4 + ["FAILED", "WAITING"]
    failure = victim.failure()
    assert failure is not None
    assert failure.kind == "cancelled"
    launch(place)
    wait_for_completion(place, 6)


def test_what_was_cancelled_is_resumed_at_once(place: Path) -> None:
    """Its job is still ending then."""
    sweep(place, "extract_codes", [0], axes="tokenizer.steps: [600]")
    launch(place)
    (tokenizer,) = [f for f in folders(place) if f.path.parent.name == "train_tokenizer"]

    def begun() -> bool:
        lease = tokenizer.lease()
        return lease is not None and lease.progress.get("done", 0) > 0

    wait_until(begun, "the first steps")
    call(place, "orchestration", "cancel", "study", variables=alone())
    call(place, "orchestration", "resume", "study", "--yes", variables=alone())
    wait_for_completion(place, 2)
    assert [a.outcome for a in tokenizer.attempts()] == ["interrupted", "complete"]


GATED = "zip: [{{tokenizer.decoder: [S, B], tokenizer.lr: [{lr}, 2.0e-4]}}]\n"
"""Two sizes; what is zipped with a size belongs to it."""


def launch_gated(place: Path, lr: str) -> None:
    """Two sizes with a gate between them: only the smaller one's jobs are queued."""
    sweep(place, "extract_codes", [0])
    study = place / "study.yaml"
    text = study.read_text().replace(", tokenizer.decoder: S", "")
    study.write_text(text + GATED.format(lr=lr))
    (place / "profile.yaml").write_text(PROFILE + "gates: {}\n")
    launch(place)
    assert [len(a.folders) for a in arrays(place) if a.kind == "train_tokenizer"] == [1]


def tokenizers(place: Path) -> dict[str, StageFolder]:
    found = [f for f in folders(place) if f.path.parent.name == "train_tokenizer"]
    return {folder.spec().readable: folder for folder in found}


def test_a_larger_model_is_queued_when_its_smaller_sibling_is_done(place: Path) -> None:
    """By the controller, with nobody logged in."""
    launch_gated(place, "2.0e-4")
    wait_for_completion(place, 4)
    attempts = {size: folder.attempts()[-1] for size, folder in tokenizers(place).items()}
    assert attempts["S-B"].started >= (attempts["S-S"].ended or float("inf"))


def test_a_larger_model_is_held_when_its_smaller_sibling_fails(place: Path) -> None:
    launch_gated(place, "1.0e+30")
    wait_until(lambda: not queue(), "the end of all jobs", SECONDS)
    of = tokenizers(place)
    assert (of["S-S"].state(), of["S-B"].state()) == ("FAILED", "WAITING")
    why = of["S-B"].held()
    assert why is not None
    assert "held: train_tokenizer of the smaller S-S failed" in why
    call(place, "orchestration", "resume", "study", "--ignore-gates", "--yes", variables=alone())
    wait_until(lambda: of["S-B"].is_complete() and not queue(), "the larger model", SECONDS)
    assert states(place) == ["COMPLETE"] * 2 + ["FAILED", "WAITING"]


def test_three_identical_exceptions_empty_the_queue(place: Path) -> None:
    """A hook in the workers' environment breaks an import; without it, the sweep goes on."""
    sweep(place, "train_tokenizer", list(range(6)))
    (place / "sitecustomize.py").write_text(HOOK)
    (place / "profile.yaml").write_text(f"{PROFILE}setup: [{json.dumps(EXPORT)}]\n")
    launch(place, "--jobs", "1")
    wait_until(lambda: not queue(), "the end of all jobs", SECONDS)
    assert states(place) == ["FAILED"] * 3 + ["WAITING"] * 3
    controllers = list(place.glob("runs/slurm/*-controller-*"))
    assert len(controllers) <= 2  # which do not follow each other without end
    (place / "profile.yaml").write_text(PROFILE)
    call(place, "orchestration", "resume", "study", "--failed", "--yes", variables=alone())
    wait_for_completion(place, 6)


HOOK = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "gigatok.stages.train_tokenizer.run":
            raise RuntimeError("no luck")
sys.meta_path.insert(0, Broken())
"""
EXPORT = 'export PYTHONPATH="$SLURM_SUBMIT_DIR"'
Records = list[dict[str, Any]]
BEFORE, AFTER = "sleep 2; {real}", "{real}; code=$?; sleep 3; exit $code"
"""An sbatch that is killed before, or after, the scheduler has taken the job."""
MOMENTS: dict[str, tuple[Callable[[Records], bool], str]] = {
    "the controller": (lambda journal: len(journal) == 1, AFTER),
    "the first array, not yet queued": (lambda journal: len(journal) == 2, BEFORE),
    "the first array, queued": (lambda journal: len(journal) == 2, AFTER),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_launcher_killed_while_it_submits_loses_and_doubles_nothing(
    place: Path, moment: str
) -> None:
    """Before and after the scheduler has taken a job that the launcher does not know of yet."""
    sweep(place, "extract_codes", [0, 1])
    reached, sbatch = MOMENTS[moment]
    slow = place / "bin" / "sbatch"
    slow.parent.mkdir()
    real = shutil.which("sbatch")
    slow.write_text("#!/bin/sh\n" + sbatch.format(real=f'{real} "$@"') + "\n")
    slow.chmod(0o755)
    path = f"{slow.parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", *words()]
    launcher = subprocess.Popen(command, cwd=place, env=alone(PATH=path))
    journal = place / "runs" / "journal"

    def now() -> bool:
        assert launcher.poll() is None
        return reached([json.loads(file.read_text()) for file in journal.glob("*.json")])

    wait_until(now, moment, 60)
    time.sleep(0.5)
    launcher.kill()
    launcher.wait()
    launch(place)
    live = stage_jobs()
    waiting = [folder for folder in folders(place) if not folder.is_complete()]
    assert len(live) >= len(waiting)
    assert len(live) <= 4
    wait_for_completion(place, 4)
    assert [len(folder.attempts()) for folder in folders(place)] == [1] * 4


def test_thousands_of_stages_are_queued_below_the_cap(place: Path) -> None:
    sweep(place, "train_tokenizer", list(range(2500)))
    launch(place, "--jobs", "5")
    assert [len(array.folders) for array in arrays(place)] == [1001, 1001, 498]
    assert sum(array.width or 0 for array in arrays(place)) == 5
    assert len(folders(place)) == 2500
    jobs = Journal(Store(place / "runs")).jobs()
    listed = {handle for handle, _, _ in stage_jobs()}
    over = [f for f in folders(place) if jobs[f.spec().key].handle not in listed]
    assert all(folder.is_complete() for folder in over)
    most = 0
    for _ in range(40):
        most = max(most, sum(state == "RUNNING" for _, _, state in stage_jobs()))
        time.sleep(0.25)
    assert 2 <= most <= 5
    assert "stages are queued or running already" in launch(place)
    assert len(arrays(place)) == 3
