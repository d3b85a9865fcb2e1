"""Commands that messages print, as a shell takes them: names may hold spaces and quotes."""

from __future__ import annotations

import sys
from pathlib import Path

from gigatok.text.command_lines import PROGRAM, command
from gigatok.text.credentials import shown
from gigatok.text.places import DEFAULT_RUNS
from orchestration.runs.state import Store


def steering(action: str, sweep: str, store: Store, *options: str) -> str:
    """Write a command about a sweep of a runs directory."""
    where = () if store.root == DEFAULT_RUNS else ("--runs-dir", store.root)
    return command("orchestration", action, sweep, *options, *where)


def same_command() -> str:
    """Write the command line that this process was started with, its passwords hidden."""
    # `python -m` puts the module's file first: `launch` is a module, the rest are commands of one.
    whole = Path(sys.argv[0]).name in ("__main__.py", PROGRAM)
    return command("orchestration" if whole else "orchestration.launch", *map(shown, sys.argv[1:]))
