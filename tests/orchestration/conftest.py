import shutil

import pytest

from orchestration.ledger import parse_uri
from orchestration.mlflow_server import Server
from orchestration.state import Store
from tests.orchestration.tracking_helpers import plan_of


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
