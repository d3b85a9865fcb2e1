"""How many processes run the suite, and which of its tests are fast."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

PROCESSES = 8
"""Most workers: each imports torch and MLflow, which takes about 1 GB."""
LONGER = ("slow", "network", "cluster", "heavy")
"""Markers of tests that `-m fast` leaves out.

A test is `heavy` if it starts Python, which takes a second until torch or MLflow is imported, or
trains for seconds. All others are fast: no list has to be kept, and `_refuse_python` holds the rule.
"""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Choose the number of workers: one per core for folders, none where one process is needed."""
    option = config.option
    cluster = re.search(r"(?<!not )\bcluster\b", option.markexpr)  # one SLURM at a time
    terminal = option.capture == "no" or option.trace  # workers have none
    # Starting workers takes longer than they save in one file, and doubles its fixtures.
    folders = all(Path(argument).is_dir() for argument in config.args)
    if cluster or terminal or not folders:
        return 0
    return min(_cores(), PROCESSES)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores among workers and what they start: torch would take all in each."""
    workers = getattr(config.option, "numprocesses", None)
    if workers:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // workers)))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `fast` every test that has no marker of a longer suite."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in LONGER):
            item.add_marker(pytest.mark.fast)


_current: list[pytest.Item] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tell the hook below which test runs."""
    _current.append(item)
    try:
        return (yield)
    finally:
        _current.clear()


def _refuse_python(event: str, arguments: tuple[object, ...]) -> None:
    """Fail a fast test, or the fixture that it is the first to use, that starts Python."""
    if event == "subprocess.Popen" and arguments[0] == sys.executable and _current:
        if _current[0].get_closest_marker("fast"):
            pytest.fail("starts Python, thus is no fast test: mark it `heavy`")


sys.addaudithook(_refuse_python)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema, to be copied: making one takes a second."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file
