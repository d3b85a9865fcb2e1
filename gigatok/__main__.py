"""`python -m gigatok COMMAND`: the program `gigatok`, where it is not on the path."""

from __future__ import annotations

from gigatok.commands.application import application
from gigatok.commands.console import HELP

app = application(HELP)


if __name__ == "__main__":
    app(prog_name="python -m gigatok")
