from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from orchestration import Study
from tests.gigatok.process_pair import ProcessPair
from tests.gigatok.trained import run_study, untrained_stage


@pytest.fixture(scope="session")
def pair() -> Iterator[ProcessPair]:
    """Start one pair for all tests: importing torch in both takes about 10 s of CPU."""
    processes = ProcessPair()
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that has trained a tokenizer and a generator: tests that use it are heavy."""
    # Workers of xdist have folders of their own below one: the study runs once for all of them.
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if is_worker else base) / "home"
    with FileLock(folder.with_suffix(".lock")):
        return run_study(folder)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder with a tokenizer that nobody trained."""
    return untrained_stage(tmp_path_factory.mktemp("untrained") / "S-S-0123456789abcdef")
