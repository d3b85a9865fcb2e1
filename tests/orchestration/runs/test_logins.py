"""Passwords in the URLs of a launch: where they are kept, and where they are not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orchestration.launching import drawn
from orchestration.launching.history import newest_launch
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan
from orchestration.runs.logins import with_login
from orchestration.runs.state import Store
from tests.orchestration.tracking.tracking_helpers import plan_of

URI, DATABASE = "http://me:geheim@host:5000", "postgresql://me:geheim@host/db"


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Plan]:
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    store, plan = Store(tmp_path / "runs"), plan_of(tmp_path, "study")
    record_launch(plan, store, LaunchRequest(sweep="study", tracking_uri=URI, storage=DATABASE))
    return store, plan


def test_only_the_owner_can_read_a_password(launched: tuple[Store, Plan]) -> None:
    store, _ = launched
    holding = [f for f in store.root.rglob("*") if f.is_file() and b"geheim" in f.read_bytes()]
    assert [file.parent.name for file in holding] == ["logins"]
    assert holding[0].stat().st_mode & 0o777 == 0o600


def test_a_later_command_has_the_password_again(launched: tuple[Store, Plan]) -> None:
    store, _ = launched
    request = newest_launch(store, "study").request
    assert (request.tracking_uri, request.storage) == (
        "http://host:5000",
        "postgresql://host/db",
    )
    assert request.store_uri(store) == URI
    assert with_login(store, str(request.storage)) == DATABASE
    assert with_login(store, "http://other:5000") == "http://other:5000"


def test_a_password_of_the_environment_wins(
    launched: tuple[Store, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "newer")
    assert with_login(launched[0], "http://host:5000") == "http://host:5000"


@pytest.mark.heavy
def test_the_drawing_process_shows_no_password(
    launched: tuple[Store, Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    echo = tmp_path / "echo.py"
    echo.write_text(
        f"#!{sys.executable}\nimport json, os, sys, pathlib\n"
        "seen = [sys.argv, dict(os.environ), json.loads(sys.stdin.readline())]\n"
        "pathlib.Path(__file__).with_suffix('.txt').write_text(json.dumps(seen))\n"
    )
    echo.chmod(0o755)
    monkeypatch.setattr(drawn.sys, "executable", str(echo))
    store, plan = launched
    drawing = drawn.draw(plan, store, URI, tmp_path / "figure.png")
    assert not drawing.is_whole, "nothing drew a figure"
    arguments, environment, told = json.loads(echo.with_suffix(".txt").read_text())
    assert "http://host:5000" in told["words"]
    assert "geheim" not in str([arguments, environment, told["words"]])
    assert told["variables"]["MLFLOW_TRACKING_PASSWORD"] == "geheim"
