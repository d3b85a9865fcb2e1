from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
    """A study that has run, with one trial: tests that use it are heavy."""
    return run_study(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder with a tokenizer that nobody trained."""
    return untrained_stage(tmp_path_factory.mktemp("untrained") / "S-S-0123456789abcdef")
