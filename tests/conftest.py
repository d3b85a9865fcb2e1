"""How many processes run the suite, and which of its tests are fast."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

PROCESSES = 8
"""Most workers: each imports torch and MLflow, which takes about 1 GB."""
LONGER = ("slow", "network", "cluster", "heavy")
"""Markers of tests that `-m fast` leaves out."""


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


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema, to be copied: making one takes a second."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file
