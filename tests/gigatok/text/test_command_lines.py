"""Commands inside messages: in the form that was typed, and never of a file of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.text.command_lines import command


def test_the_form_is_that_which_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/there/bin/gigatok", "status"])
    assert command("orchestration", "status", "a b") == "gigatok status 'a b'"
    assert command("orchestration.launch", "x") == "gigatok launch x"
    assert command("analysis", "table", "x") == "gigatok analysis table x"
    monkeypatch.setattr("sys.argv", ["/there/orchestration/__main__.py", "status"])
    assert command("analysis", "table", "x") == "python -m analysis table x"


def test_a_file_that_would_run_instead_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "analysis.py").touch()
    assert command("analysis", "table", "x") == "python -P -m analysis table x"
    monkeypatch.setattr("sys.argv", ["/there/bin/gigatok", "launch"])
    assert command("analysis", "table", "x") == "gigatok analysis table x"
