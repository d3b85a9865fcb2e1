"""Commands that messages print are commands."""

from __future__ import annotations

import shlex
from pathlib import Path

from orchestration.command_lines import same_command, steering
from orchestration.runs.state import Store

NAME = "lr=0.1% (final) ‘x’ #2"


def test_names_with_spaces_and_quotes_are_one_word(tmp_path: Path) -> None:
    said = steering("status", NAME, Store(Path("a user's runs")), "-w")
    words = ["python", "-m", "orchestration", "status", NAME, "-w", "--runs-dir", "a user's runs"]
    assert shlex.split(said) == words
    assert steering("cancel", "x", Store(Path("runs"))) == "python -m orchestration cancel x"


def test_the_same_command_is_of_the_same_module(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.argv", ["/there/orchestration/__main__.py", "resume", NAME])
    assert same_command() == f"python -m orchestration resume {shlex.quote(NAME)}"
    monkeypatch.setattr("sys.argv", ["/there/orchestration/launch.py", "x"])
    assert same_command() == "python -m orchestration.launch x"
    monkeypatch.setattr("sys.argv", ["/there/bin/gigatok", "launch", "x"])
    assert same_command() == "gigatok launch x"
