"""Commands that messages print, as a shell takes them: names may hold spaces and quotes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from gigatok.text.credentials import shown
from orchestration.runs.state import Store

DEFAULT_RUNS = Path("runs")


def command(*words: object) -> str:
    """Write a command of this program."""
    return shlex.join(["python", "-m", *map(str, words)])


def steering(action: str, sweep: str, store: Store, *options: str) -> str:
    """Write a command of `python -m orchestration` about a sweep of a runs directory."""
    where = () if store.root == DEFAULT_RUNS else ("--runs-dir", store.root)
    return command("orchestration", action, sweep, *options, *where)


def same_command() -> str:
    """Write the command line that this process was started with, its passwords hidden."""
    # `python -m` puts the module's file first: `launch` is a module, the rest are commands of one.
    package = Path(sys.argv[0]).name == "__main__.py"
    return command(
        "orchestration" if package else "orchestration.launch", *map(shown, sys.argv[1:])
    )
