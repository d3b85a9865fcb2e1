"""The script for a GPU is sound: on a CPU every section runs in its smallest sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.gpu.__main__ import SECTIONS
from tests.benchmarks.gpu.rows import Row, Settings
from tests.benchmarks.gpu.running import OUT_OF_TIME, run_section

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings("cpu", quick=True)
# The golden numbers of published models, which other tests compare on a CPU, have no smaller size.
TRIED = [name for name in SECTIONS if name not in ("golden", "tokens")]


@pytest.mark.slow
def test_sections_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu", "--quick"]
    command += [argument for name in TRIED for argument in ("--section", name)]
    file = tmp_path / "gpu.json"
    # Wide, or names would be cut off.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert file.exists(), done.stderr
    sections = {one["name"]: one for one in json.loads(file.read_text())["sections"]}
    assert {name: one["failure"] for name, one in sections.items()} == dict.fromkeys(TRIED)
    wrong = [row for one in sections.values() for row in one["rows"] if row["right"] is False]
    assert wrong == []
    assert all(one["rows"] for one in sections.values())
    assert done.returncode == 0, done.stderr
    # The table comes last, and has every section.
    table = done.stdout[done.stdout.index("torch") :]
    assert all(name in table for name in TRIED)


def fails(settings: Settings) -> Iterator[Row]:
    yield Row("before", "found")
    raise ValueError("nothing more")


def dies(settings: Settings) -> Iterator[Row]:
    yield Row("before", "found")
    os._exit(3)


def hangs(settings: Settings) -> Iterator[Row]:
    yield Row("before", "found")
    time.sleep(600)


@pytest.mark.slow
def test_a_section_that_goes_wrong_keeps_what_it_found() -> None:
    failed = run_section("fails", fails, SETTINGS, 300)
    assert [row.what for row in failed.rows] == ["before"]
    assert failed.failure is not None
    assert "in fails" in failed.failure
    assert "ValueError: nothing more" in failed.failure
    died = run_section("dies", dies, SETTINGS, 300)
    assert died.failure == "its process ended with exit code 3"
    assert [row.what for row in died.rows] == ["before"]


@pytest.mark.slow
def test_a_section_is_stopped_when_its_time_is_over() -> None:
    stopped = run_section("hangs", hangs, SETTINGS, 10)
    assert stopped.failure == OUT_OF_TIME
    assert [row.what for row in stopped.rows] == ["before"]
