"""Frame of the commands: exit codes, the device, and a bar that shows how far they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

P = ParamSpec("P")
T = TypeVar("T")
WRONG = 2
"""Exit code of a request that cannot be served, as of every command."""


def answering(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command end with a message and exit code 2 where the request was wrong."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise  # of `| head`: the command line ends quietly
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            raise typer.Exit(WRONG) from None

    return run


def chosen_device(given: str | None) -> str:
    """Return the device that the user gave; else a GPU if torch finds one, else the CPU."""
    import torch

    return given or ("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; yields a function that takes the numbers of done and of all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not console.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden
    ) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show
