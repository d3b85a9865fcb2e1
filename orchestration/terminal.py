"""Terminal of a user: consoles, tables and questions that look alike in all commands."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from rich.console import Console
from rich.prompt import Confirm
from rich.table import Table


def plain_console(*, stderr: bool = False) -> Console:
    """Make a console that reads no markup: names and messages may hold brackets."""
    return Console(stderr=stderr, markup=False, highlight=False)


def quiet_console() -> Console:
    """Make a console that keeps what is printed to itself."""
    return Console(file=StringIO(), width=120, markup=False, highlight=False)


def printed(console: Console) -> str:
    """Return what was printed on a console of `quiet_console`."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip()


def plain_table(heads: Iterable[str], right: Container[str] = (), **column: Any) -> Table:
    """Make a table without lines.

    Args:
        heads: of the columns.
        right: heads of columns that are aligned to the right, as numbers are.
        column: options of all columns, such as `no_wrap`.
    """
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", **column)
    return table


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
