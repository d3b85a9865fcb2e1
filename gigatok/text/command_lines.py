"""Commands of this program inside messages, in a form that is safe to type. Standard library only.

Whoever typed `gigatok` is shown `gigatok …`, which imports nothing from the working folder; others
`python -m …`, which would run an `analysis.py` of theirs, and is told not to where there is one.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from gigatok.startup import hiding

PROGRAM = "gigatok"
COMMANDS = {
    "orchestration": [],
    "orchestration.launch": ["launch"],
    "analysis": ["analysis"],
    "dashboards": ["dashboards"],
    "gigatok": [],
}
"""Module after `python -m` -> words of the program that do the same."""


def command(module: str, *words: object) -> str:
    """Write a command as a shell takes it: names may hold spaces and quotes."""
    if Path(sys.argv[0]).name == PROGRAM:
        start = [PROGRAM, *COMMANDS[module]]
    else:
        start = ["python", *(["-P"] if hiding(os.curdir) else []), "-m", module]
    return shlex.join([*start, *map(str, words)])
