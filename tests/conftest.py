"""Choose how many processes run the suite, and mark its fast tests."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

PROCESSES = 8
"""Largest number of workers: each imports torch and MLflow, about 1 GB."""
LONGER = ("slow", "network", "cluster", "heavy")
"""Markers that keep a test out of `-m fast`.

A test is `heavy` if it starts Python, takes over .3 s of CPU, runs networks of published size,
counts operations, draws figures or fills a tracking store. Everything else is fast without being
listed; `_refuse_python` enforces the first, which costs most.
"""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Take one worker per core for folders of tests, and none where one process is needed."""
    option = config.option
    cluster = re.search(r"(?<!not )\bcluster\b", option.markexpr)  # each worker would start SLURM
    terminal = option.capture == "no" or option.trace  # workers have no terminal
    # For single files, starting workers and repeating module fixtures costs more than it saves.
    folders = all(Path(argument).is_dir() for argument in config.args)
    if cluster or terminal or not folders:
        return 0
    return min(_cores(), PROCESSES)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    """Divide the cores among the workers; torch would start a thread per core in each."""
    workers = getattr(config.option, "numprocesses", None)
    if workers:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // workers)))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that has no marker of a longer suite as `fast`."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in LONGER):
            item.add_marker(pytest.mark.fast)


_current: list[pytest.Item] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember the running test for `_refuse_python`."""
    _current.append(item)
    try:
        return (yield)
    finally:
        _current.clear()


def _refuse_python(event: str, arguments: tuple[object, ...]) -> None:
    """Fail a fast test that starts Python itself or in a fixture."""
    if event != "subprocess.Popen" or arguments[0] != sys.executable or not _current:
        return
    if _current[0].get_closest_marker("fast"):
        pytest.fail("a test that starts Python is not fast: mark it `heavy`")


sys.addaudithook(_refuse_python)  # cannot be removed, thus once for the whole run


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a database with MLflow's schema, to be copied."""
    from mlflow import MlflowClient
    from mlflow.version import VERSION

    from orchestration.tracking import sqlite_file

    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    sqlite_file.create(file, VERSION, MlflowClient)
    return file
