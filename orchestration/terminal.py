"""Terminal of a user: consoles and questions that look alike in all commands."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO

from rich.console import Console
from rich.prompt import Confirm


def plain_console(*, stderr: bool = False) -> Console:
    """Make a console that reads no markup: names and messages may hold brackets."""
    return Console(stderr=stderr, markup=False, highlight=False)


def say_event(console: Console, text: str, style: str = "") -> None:
    """Print what happens during a launch; in a log, as one line with the time."""
    if console.is_terminal:
        console.print(text, style=style)
        return
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    # Not wrapped: a log is searched line by line.
    console.print(f"{now} {' '.join(text.split())}", soft_wrap=True)


def quiet_console() -> Console:
    """Make a console that keeps what is printed to itself."""
    return Console(file=StringIO(), width=120, markup=False, highlight=False)


def printed(console: Console) -> str:
    """Return what was printed on a console of `quiet_console`."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip()


@dataclass(frozen=True)
class Terminal:
    """Terminal of a user who follows a launch.

    Attributes:
        console: for the live display and what is said on the way.
        watch: where jobs go on without the launcher, stay until they are over.
        ask: let a user at a terminal confirm before such jobs are queued.
        as_json: results are printed as JSON: nothing else may be on stdout.
    """

    console: Console = field(default_factory=quiet_console)
    watch: bool = False
    ask: bool = False
    # Progress then goes to stderr: another program parses stdout.
    as_json: bool = False

    def confirms(self, question: str) -> bool:
        """Ask the user; yes where nobody is to be asked, or could answer."""
        if not (self.ask and sys.stdin.isatty()):
            return True
        return Confirm.ask(question, console=self.console, default=True)
