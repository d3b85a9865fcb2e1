"""Ends of commands whose request was wrong: a message and an exit code, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import typer

from orchestration.backends.base import Infeasible
from orchestration.exits import EXIT_REFUSED, EXIT_WRONG

P = ParamSpec("P")
T = TypeVar("T")


def fail(error: Exception) -> NoReturn:
    """Say what is wrong with the request or this machine and exit with 2; with 3 if infeasible."""
    print(error, file=sys.stderr)
    if isinstance(error, OSError):
        print("Complete stages are kept; launch again when this is fixed.", file=sys.stderr)
    raise typer.Exit(EXIT_REFUSED if isinstance(error, Infeasible) else EXIT_WRONG) from None


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
