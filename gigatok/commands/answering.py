"""Ends of commands whose request was wrong: a message and an exit code, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import typer

P = ParamSpec("P")
T = TypeVar("T")
WRONG = 2
"""Exit code of a request that cannot be served, of errors that name no other as `exit_code`."""


def fail(error: Exception) -> NoReturn:
    """Print an error and the notes that it carries, and exit with its code."""
    for text in (error, *getattr(error, "__notes__", ())):
        print(text, file=sys.stderr)
    raise typer.Exit(getattr(error, "exit_code", WRONG)) from None


def answering(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command end with a message, not a traceback, where the request was wrong."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise  # of `| head`: the command line ends quietly
        except (ValueError, OSError) as error:
            fail(error)

    return run
