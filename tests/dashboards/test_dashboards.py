"""Commands of the dashboards, and how the page's address is made; the browser's tests are slow."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dashboards import __main__ as command
from dashboards import reading
from dashboards.source import PageSource, parse
from dashboards.words import duration
from tests.analysis.conftest import Store, write_grid

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (90_000, "1 d 1 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("uri", [None, "sqlite:///elsewhere/m.db", "http://host:5000"])
def test_the_page_is_told_what_the_command_was(uri):
    source = PageSource.of(Path("some/runs"), uri, token="-secret")
    assert parse(source.arguments()) == source


RUN = "#/experiments/7/runs/abc?workflowType=machine_learning"


def test_links_lead_to_the_server_that_holds_the_runs():
    server = PageSource.of(Path("runs"), "http://host:5000/")
    assert server.run_url("7", "abc") == f"http://host:5000/{RUN}"
    assert server.mlflow_command == ""
    local = PageSource.of(Path("runs"), None)
    assert local.run_url("7", "abc") == f"http://127.0.0.1:5000/{RUN}"
    assert local.mlflow_command == "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"


def test_links_and_commands_carry_no_password():
    server = PageSource.of(Path("runs"), "https://me:geheim@host:5000")
    assert server.run_url("7", "abc") == f"https://host:5000/{RUN}"
    database = PageSource.of(Path("runs"), "postgresql://me:geheim@host/db")
    assert database.mlflow_command == "mlflow ui --backend-store-uri 'postgresql://me:***@host/db'"


def test_without_its_libraries_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    for arguments in ([], ["export", "study"]):
        result = CliRunner().invoke(command.app, arguments)
        assert result.exit_code == 2
        assert "pip install -e '.[dashboards]'" in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org", "192.168.0.4"])
def test_listening_elsewhere_is_said(host, monkeypatch):
    monkeypatch.setattr(command, "_serve", lambda *of: 0)
    result = CliRunner().invoke(command.app, ["--host", host])
    assert result.exit_code == 0
    assert "there is no password" in result.output


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_words(host, monkeypatch):
    monkeypatch.setattr(command, "_serve", lambda *of: 0)
    assert CliRunner().invoke(command.app, ["--host", host]).output == ""


@pytest.mark.parametrize("options", [["--host", "0.0.0.0"], ["--allow-host", "proxy.example"]])
def test_stop_and_retry_are_for_this_machine_alone(options, monkeypatch):
    monkeypatch.setattr(command, "_serve", lambda *of: 0)
    result = CliRunner().invoke(command.app, ["--allow-actions", *options])
    assert result.exit_code == 2
    assert "this machine alone" in result.output
    assert "token=" not in result.output


def test_the_token_is_another_each_time(monkeypatch):
    monkeypatch.setattr(command, "_serve", lambda *of: 0)
    said = [CliRunner().invoke(command.app, ["--allow-actions"]).output for _ in range(2)]
    assert said[0] != said[1]
    assert all("/?token=" in text for text in said)


@pytest.mark.heavy
def test_the_first_view_finds_all_that_it_reads(empty_database, tmp_path):
    database = Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))
    write_grid(Store(f"sqlite:///{database}"))
    source = PageSource.of(tmp_path, None)
    at = reading.version(source.uri)
    try:
        command._warm(source)
        assert gc.get_freeze_count() > 0  # not looked through again after every run of the page
    finally:
        gc.unfreeze()
    database.unlink()  # so that nothing is read again
    (_, title) = sorted(reading.titles(source.uri, at), key=lambda title: title.launched)
    study = reading.load(source.uri, title, title.run_id, at)
    view = reading.first_view(source, study, at)
    assert "comparisons" in view.answer.headline
    assert view.figure is not None
    assert any(layer["data"]["values"] for layer in view.figure["layer"])


def test_export_of_what_is_not_there(tmp_path):
    arguments = ["export", "study", "--runs-dir", str(tmp_path)]
    result = CliRunner().invoke(command.app, arguments)
    assert result.exit_code == 2
    assert "no tracking database" in result.output


@pytest.mark.heavy
def test_help_starts_without_streamlit():
    assert importlib.util.find_spec("streamlit") is not None
    code = "import sys, dashboards.__main__; print('streamlit' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
