"""The job that looks after a queued sweep, where its environment lacks what the sweep needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestration.__main__ import app
from orchestration.backends.detached.journal import CONTROLLER, Journal
from orchestration.commands.control import control
from orchestration.exits import EXIT_REFUSED
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from tests.restoring import restored_registries

SWEEP = """question: q
scale: smoke
plugins: [lost_lab]
set: {tokenizer.encoder: S, tokenizer.decoder: S}
stages: [train_tokenizer]
"""
PLUGIN = "from gigatok.names import Metric, register\nregister(Metric('lost', 'lost'))\n"
METADATA = "Name: lost-lab\nVersion: 1.0\n"


@pytest.fixture
def queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Queue a controller of a sweep with a plug-in, which is then gone; the job's name."""
    site = tmp_path / "site"
    (site / "lost_lab-1.0.dist-info").mkdir(parents=True)
    (site / "lost_lab-1.0.dist-info" / "METADATA").write_text(METADATA)
    (site / "lost_lab-1.0.dist-info" / "top_level.txt").write_text("lost_lab\n")
    (site / "lost_lab.py").write_text(PLUGIN)
    (tmp_path / "lost.yaml").write_text(SWEEP)
    with monkeypatch.context() as installed, restored_registries():
        installed.syspath_prepend(str(site))
        sweep = load_sweep(tmp_path / "lost.yaml")
        plan = make_plan(sweep, expand(sweep))
        store = Store(tmp_path / "runs")
        record_launch(plan, store, LaunchRequest(sweep="lost.yaml"))
    del sys.modules["lost_lab"]
    return Journal(store, "slurm").intend(CONTROLLER, "lost", plan.key).name


@pytest.mark.heavy
def test_it_ends_with_what_is_missing_and_status_shows_it(queued: str, tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as ended:
        control(queued, tmp_path / "runs", tmp_path / "profile.yaml", "slurm")
    assert ended.value.exit_code == EXIT_REFUSED
    status = ["status", "lost", "--runs-dir", str(tmp_path / "runs")]
    shown = CliRunner().invoke(app, status, env={"COLUMNS": "500"}).output
    assert "plug-in lost_lab: no module 'lost_lab' can be imported here" in shown
    assert "the launch used lost-lab 1.0" in shown
    assert f"install it for {sys.executable}" in shown
    assert "python -m orchestration resume lost" in shown
