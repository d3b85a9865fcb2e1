"""Device of a command, and a bar that shows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def chosen_device(given: str | None) -> str:
    """Return the device that the user gave, else a GPU if torch finds one, else the CPU.

    It is prepared as for the stages of a study, so that bits agree with theirs.
    """
    import torch

    from gigatok.runtime.devices import prepare_device

    device = given or ("cuda" if torch.cuda.is_available() else "cpu")
    prepare_device(device)
    return device


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
