"""A search on a real SLURM cluster tells the same story as here, also when its job is killed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from orchestration.backends.detached.journal import CONTROLLER
from tests.orchestration.backends.slurm.slurm_cluster import Cluster, run, wait_until
from tests.orchestration.programs import call, environment
from tests.orchestration.search.search_helpers import (
    HEAD,
    ONE_THREAD,
    PRUNED_BLOCK,
    TRIALS,
    Json,
    story,
)

pytestmark = pytest.mark.cluster
PROFILE = "default: {time_minutes: 30, slurm: {partition: main}}\n"
SECONDS = 600.0


def launch(folder: Path, *options: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "searched.yaml").write_text(HEAD + PRUNED_BLOCK)
    (folder / "profile.yaml").write_text(PROFILE)
    command = ("orchestration.launch", "searched.yaml", "--json", *options)
    return call(folder, *command, variables=environment(OMP_NUM_THREADS="1")).stdout


def controllers() -> list[str]:
    """Jobs that ask and tell now."""
    running = run("squeue", "--me", "-h", "-t", "RUNNING", "-o", "%A %j").splitlines()
    return [line.split()[0] for line in running if f"-{CONTROLLER}-" in line]


def test_the_same_story_with_the_controller_killed_twice(cluster: Cluster, tmp_path: Path) -> None:
    slurm = ("--backend", "slurm", "--profile", "profile.yaml", "--yes")
    there = tmp_path / "slurm"
    launch(there, *slurm)
    for seconds in (6.0, 9.0):
        wait_until(lambda: bool(controllers()), "a controller", SECONDS)
        time.sleep(seconds)
        run("scancel", "--signal=KILL", "--full", *controllers())
    found: Json = json.loads(launch(there, *slurm, "--watch"))
    here: Json = json.loads(launch(tmp_path / "local", *ONE_THREAD))
    assert story(found) == story(here)
    assert len(story(here)) == TRIALS
    wait_until(lambda: not run("squeue", "--me", "-h"), "an empty queue", SECONDS)
