from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from orchestration.runs.state import Store
from orchestration.tracking.ledger import parse_uri
from orchestration.tracking.mlflow_server import Server
from tests.orchestration.backends.slurm.slurm_cluster import Cluster, slurm_cluster
from tests.orchestration.tracking.tracking_helpers import plan_of


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's schema: making one takes a second."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    Server(parse_uri(f"sqlite:///{file}"), "template")
    return file


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
