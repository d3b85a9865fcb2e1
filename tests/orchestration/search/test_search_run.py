"""Searches with real stages at scale smoke: killed, cancelled, failing, on Ray, transferred."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.runs.state import StageFolder
from orchestration.sweep.definition import SWEEPS_DIR
from tests.orchestration.programs import call, environment
from tests.orchestration.search.search_helpers import (
    HEAD,
    ONE_THREAD,
    PRUNED_BLOCK,
    TRIALS,
    Json,
    story,
)

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("GIGATOK_SEARCH_KILLS", "3"))
TUNED = 8
"""Trials at the small decoder before the best rate is checked at the larger one."""


def start(
    folder: Path, *arguments: str, block: str = PRUNED_BLOCK, head: str = HEAD
) -> subprocess.Popen[bytes]:
    (folder / "searched.yaml").write_text(head + block)
    command = [sys.executable, "-m", "orchestration.launch", "searched.yaml", "--json"]
    with (folder / "launch.log").open("ab") as log, (folder / "found.json").open("wb") as out:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=environment(),
            stdout=out,
            stderr=log,
        )


def finish(folder: Path, process: subprocess.Popen[bytes], code: int = 0) -> Json:
    assert process.wait(timeout=500) == code, (folder / "launch.log").read_text()[-5000:]
    found: Json = json.loads((folder / "found.json").read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    found = finish(folder, start(folder, *ONE_THREAD))
    return folder, found, time.monotonic() - started


def stages(folder: Path, stage: str) -> list[StageFolder]:
    return [StageFolder.at(p) for p in (folder / "runs" / "stages" / stage).glob("[!.]*")]


def test_pruned_trials_are_neither_failed_nor_lost(undisturbed: tuple[Path, Json, float]) -> None:
    folder, found, _ = undisturbed
    states = [trial[1] for trial in story(found)]
    assert len(states) == TRIALS
    assert set(states) == {"COMPLETE", "PRUNED"}
    folders = stages(folder, "train_generator")
    assert len(folders) == TRIALS
    for one in folders:
        assert one.failure() is None
        assert one.state() in ("COMPLETE", "WAITING")
        if one.state() == "WAITING":
            assert one.attempts()[-1].outcome == "interrupted"
    assert len(stages(folder, "train_tokenizer")) == 1
    every = [one for stage in (folder / "runs" / "stages").iterdir() for one in stage.iterdir()]
    attempts = [a for one in every if one.name[0] != "." for a in StageFolder.at(one).attempts()]
    hours = sum(a.ended - a.started for a in attempts if a.ended is not None) / 3600
    trials = found["studies"][0]["trials"]
    spent = sum(t["spent_hours"] for t in trials)
    assert 0.7 * hours < spent <= hours, "each stage once; what is pruned stops a moment later"
    assert sum(t["gpu_hours"] for t in trials) > 1.5 * spent, "all share the tokenizer"
    best = min(t[3]["ar_val_loss"] for t in story(found) if t[1] == "COMPLETE")
    assert found["studies"][0]["best"][0]["values"] == {"ar_val_loss": best}


def test_what_is_for_trials_of_a_sweep_is_refused(
    undisturbed: tuple[Path, Json, float],
) -> None:
    folder, _, _ = undisturbed
    said = call(folder, "orchestration", "status", "searched", "--json").stdout
    trial = next(iter(json.loads(said)["trials"]))
    for request in (("retry", "searched", trial), ("resume", "searched", "--failed")):
        refused = call(folder, "orchestration", *request, code=2)
        assert "not for a search: its trials that failed or were pruned" in refused.stderr


def test_status_and_mlflow_call_what_was_given_up_pruned(
    undisturbed: tuple[Path, Json, float],
) -> None:
    folder, found, _ = undisturbed
    said = call(folder, "orchestration", "status", "searched", "--json").stdout
    states = [stage["state"] for stage in json.loads(said)["stages"].values()]
    # A stage may complete before the pruner has seen the last of its curve: it counts as such.
    pruned = [one.state() for one in stages(folder, "train_generator")].count("WAITING")
    assert 0 < pruned <= [trial[1] for trial in story(found)].count("PRUNED")
    assert states.count("PRUNED") == pruned
    assert set(states) == {"COMPLETE", "PRUNED"}
    trials = tags_of(folder, "trial")
    assert [t["gigatok.state"] for t in trials].count("PRUNED") == pruned


def tags_of(folder: Path, kind: str) -> list[dict[str, str]]:
    """Of every MLflow run of a kind."""
    with sqlite3.connect(folder / "runs" / "mlflow.db") as store:
        rows = store.execute("select run_uuid, key, value from tags").fetchall()
    runs: dict[str, dict[str, str]] = {}
    for run, key, value in rows:
        runs.setdefault(run, {})[key] = value
    return [tags for tags in runs.values() if tags.get("gigatok.kind") == kind]


def test_mlflow_has_study_best_trial_and_importances(
    undisturbed: tuple[Path, Json, float],
) -> None:
    folder, found, _ = undisturbed
    with sqlite3.connect(folder / "runs" / "mlflow.db") as store:
        rows = store.execute("select run_uuid, key, value from tags").fetchall()
        running = store.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    runs: dict[str, dict[str, str]] = {}
    for run, key, value in rows:
        runs.setdefault(run, {})[key] = value
    assert running == (0,)
    (sweep,) = [tags for tags in runs.values() if tags.get("gigatok.kind") == "sweep"]
    assert json.loads(sweep["gigatok.search.best"]) == found["studies"][0]["best"]
    assert json.loads(sweep["gigatok.search.importances"]) == {"ar_val_loss": {"generator.lr": 1}}
    trials = [tags for tags in runs.values() if tags.get("gigatok.kind") == "trial"]
    told = sorted((int(t["gigatok.search.number"]), t["gigatok.search.state"]) for t in trials)
    assert told == [trial[:2] for trial in story(found)]


def test_a_search_that_is_over_runs_nothing(undisturbed: tuple[Path, Json, float]) -> None:
    folder, found, _ = undisturbed
    attempts = [len(one.attempts()) for one in stages(folder, "train_generator")]
    assert story(finish(folder, start(folder, *ONE_THREAD))) == story(found)
    assert [len(one.attempts()) for one in stages(folder, "train_generator")] == attempts


def test_killed_at_random_moments_it_tells_the_same_story(
    tmp_path: Path, undisturbed: tuple[Path, Json, float]
) -> None:
    _, found, seconds = undisturbed
    draw = random.Random(0)
    for _ in range(KILLS):
        process = start(tmp_path, *ONE_THREAD)
        time.sleep(draw.uniform(2.0, max(4.0, seconds / 3)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert story(finish(tmp_path, start(tmp_path, *ONE_THREAD))) == story(found)
    assert len(stages(tmp_path, "train_generator")) == TRIALS


def test_ray_tells_the_same_story(tmp_path: Path, undisturbed: tuple[Path, Json, float]) -> None:
    found = finish(tmp_path, start(tmp_path, "--backend", "ray", "--jobs", "1"))
    assert story(found) == story(undisturbed[1])


def test_interrupted_it_goes_on(tmp_path: Path, undisturbed: tuple[Path, Json, float]) -> None:
    process = start(tmp_path, *ONE_THREAD)
    time.sleep(undisturbed[2] / 3)
    process.send_signal(signal.SIGINT)
    finish(tmp_path, process, 130)
    assert story(finish(tmp_path, start(tmp_path, *ONE_THREAD))) == story(undisturbed[1])


def test_a_trial_whose_stage_fails_is_told_so(tmp_path: Path) -> None:
    block = PRUNED_BLOCK.replace("low: 1e-4, high: 1e-1", "low: 1e+20, high: 1e+30")
    block = block.replace(f"trials: {TRIALS}", "trials: 2")
    found = finish(tmp_path, start(tmp_path, *ONE_THREAD, block=block), 1)
    (study,) = found["studies"]
    assert {trial["state"] for trial in study["trials"]} == {"FAIL"}
    assert all("train_generator: NonFiniteLoss" in trial["reason"] for trial in study["trials"])
    assert study["best"] == []


def test_the_best_rate_is_checked_at_the_larger_decoder(tmp_path: Path) -> None:
    shipped = (SWEEPS_DIR / "learning_rate.yaml").read_text()
    assert shipped.count("trials: 20") == 3  # one of each scale
    (tmp_path / "short.yaml").write_text(shipped.replace("trials: 20", f"trials: {TUNED}"))
    options = ("--scale", "smoke", "--jobs", "2", "--json")
    found = json.loads(call(tmp_path, "orchestration.launch", "short.yaml", *options).stdout)
    tuned, checked = found["studies"]
    drift = found["transfer"]
    rate = tuned["best"][0]["params"]["tokenizer.lr"]
    values = {t["params"]["tokenizer.lr"]: t["values"]["psnr"] for t in checked["trials"]}
    assert sorted(values) == pytest.approx([rate * f for f in (0.25, 0.5, 1, 2, 4)])
    best = max(values, key=lambda lr: values[lr])
    assert drift["factor"] == pytest.approx(best / rate)
    assert drift["cost"] == pytest.approx(values[best] - values[rate])
    assert len(stages(tmp_path, "train_tokenizer")) == TUNED + 5


SEVERAL_BLOCK = """search:
  space: {tokenizer.lr: {low: 1e-4, high: 1e-2, log: true}}
  sampler: nsga2
  objectives: [rfid, gpu_hours]
  budget: {trials: 4}
"""


def test_several_objectives_leave_a_pareto_front_on_the_terminal_and_in_mlflow(
    tmp_path: Path,
) -> None:
    head = HEAD.replace("[train_generator]", "[train_tokenizer, evaluate_reconstruction]")
    found = finish(tmp_path, start(tmp_path, *ONE_THREAD, block=SEVERAL_BLOCK, head=head))
    (study,) = found["studies"]
    values = {t["number"]: t["values"] for t in study["trials"]}
    assert len(values) == 4
    front = {t["number"] for t in study["best"]}
    beaten = {
        number
        for number, mine in values.items()
        if any(
            other["rfid"] <= mine["rfid"]
            and other["gpu_hours"] <= mine["gpu_hours"]
            and other != mine
            for other in values.values()
        )
    }
    assert front == set(values) - beaten
    assert all(value["gpu_hours"] > 0 for value in values.values())
    assert set(study["importances"]) <= {"rfid", "gpu_hours"}
    (sweep,) = tags_of(tmp_path, "sweep")
    assert json.loads(sweep["gigatok.search.best"]) == study["best"]
    again = call(tmp_path, "orchestration.launch", "searched.yaml", *ONE_THREAD).stdout
    assert again.count("Pareto front: trial") == len(front)
