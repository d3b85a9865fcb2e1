from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from orchestration.runs.state import Store
from tests.orchestration.backends.slurm.slurm_cluster import Cluster, slurm_cluster
from tests.orchestration.tracking.tracking_helpers import plan_of


@pytest.fixture
def store(tmp_path, empty_database):
    root = tmp_path / "runs"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    return Store(root)


@pytest.fixture
def plan(tmp_path):
    return plan_of(tmp_path, "study")


@pytest.fixture(scope="session")
def slurm_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests: its servers take some seconds to start and to stop."""
    with slurm_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm_servers: Cluster) -> Iterator[Cluster]:
    """A cluster without jobs, all of whose nodes are up; left so."""
    yield slurm_servers
    slurm_servers.clear()
