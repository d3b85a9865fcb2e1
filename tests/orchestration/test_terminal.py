"""Questions to a user: asked at a terminal only, and only where that is wanted."""

from __future__ import annotations

from io import StringIO

import pytest

from orchestration.terminal import Terminal, printed, quiet_console


class Keyboard(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("\n", True), ("n\n", False)])
def test_a_user_at_a_terminal_confirms(
    monkeypatch: pytest.MonkeyPatch, typed: str, answer: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Keyboard(typed))
    terminal = Terminal(quiet_console(), ask=True)
    assert terminal.confirms("queue 3 stages?") == answer
    assert "queue 3 stages?" in printed(terminal.console)
    assert Terminal(quiet_console()).confirms("queue 3 stages?")


def test_a_script_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(""))
    assert Terminal(quiet_console(), ask=True).confirms("queue 3 stages?")
