"""The database behind MLflow's runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.ledger import parse_uri
from orchestration.mlflow_server import Server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from orchestration.ledger import parse_uri
from orchestration.mlflow_server import Server
Server(parse_uri(sys.argv[1]), "study")
"""


@pytest.mark.slow
def test_a_launcher_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    launcher = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, uri], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    draft = tmp_path / ".mlflow.db.draft"
    deadline = time.monotonic() + 120
    while not (draft.exists() and draft.stat().st_size > 0):
        assert time.monotonic() < deadline
        assert launcher.poll() is None
        time.sleep(0.001)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert Server(parse_uri(uri), "study").experiment
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}
