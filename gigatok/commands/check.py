"""`check`: does a plug-in keep the promises that the program relies on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gigatok import plugins
from gigatok.plugins import Plugin

if TYPE_CHECKING:
    from gigatok.commands.smoke_trials import Tried
    from gigatok.contracts.base import Examination

BROKEN = 1
"""Exit code where a promise is broken."""
Thing = tuple[str, str]
"""Kind and name of something that a plug-in has registered."""


def check(
    plugin: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A module, a Python file or a folder.")
    ],
    kind: Annotated[
        str | None, typer.Option(help="Only things of this kind, such as quantizer.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only things of this name.")] = None,
    trials: Annotated[
        bool, typer.Option(help="Run a smoke trial with each thing as well.")
    ] = True,
) -> None:
    """Check a plug-in: the contract of all that it registers, and a smoke trial with each.

    Exit codes: 0 all promises are kept, 1 some are broken, 2 the plug-in cannot be loaded.
    """
    # Imported here: these take torch and MLflow, and `--help` needs none.
    from gigatok.commands.smoke_trials import SmokeTrials
    from gigatok.contracts.base import examine

    found = loaded(plugin)
    checked = []
    waiting = Console(stderr=True).status("")
    with tempfile.TemporaryDirectory(prefix="gigatok-check-") as folder, waiting:
        smoke = SmokeTrials(found, Path(folder)) if trials else None
        for thing in chosen(found, kind, name):
            waiting.update(f"checking {' '.join(thing)}")
            tried = None if smoke is None else smoke.run(*thing)
            checked.append((examine(*thing), tried))
    broken = show(checked)
    print(f"\n{plugin} ({found.identity}): {verdict(broken)}")
    raise typer.Exit(BROKEN if broken else 0)


def show(checked: Sequence[tuple[Examination, Tried | None]]) -> int:
    """Print a row per thing, then every broken promise; returns their number."""
    table = Table("thing", "checks", "seconds", "smoke trial", box=None, pad_edge=False)
    broken = []
    for contract, tried in checked:
        thing, checks = f"{contract.kind} {contract.name}", f"{contract.passed}/{contract.checks}"
        table.add_row(
            thing, checks, f"{contract.seconds:.1f}", tried.words if tried else "not run"
        )
        sentences = contract.broken + (tried.broken if tried else ())
        broken += [f"{thing}: {text}" for text in sentences]
    console = Console(markup=False, highlight=False)
    console.print(table)
    for text in broken:
        # Not wrapped: each can be searched for, and holds names of files.
        console.print(f"\n{text}", style="red", soft_wrap=True)
    return len(broken)


def verdict(broken: int) -> str:
    """Say in words how many promises are broken."""
    word = "promise" if broken == 1 else "promises"
    return f"{broken} {word} broken" if broken else "all promises are kept"


def loaded(name: str) -> Plugin:
    """Import a plug-in, and with it the figures of its distribution.

    Raises:
        PluginError: it is missing, its import failed, or a name of it is taken.
    """
    # Before the plug-in: what these register is not its own, and their names are taken. The
    # gallery imports the figures of installed distributions.
    for module in ("gigatok.stages", "orchestration.backends", "analysis.figures.gallery"):
        import_module(module)
    (found,) = plugins.load([name], Path.cwd())
    return found


def chosen(plugin: Plugin, kind: str | None, name: str | None) -> list[Thing]:
    """List what a plug-in has registered, of a kind and a name.

    Raises:
        ValueError: nothing.
    """
    entries = plugins.entries_of(plugin)
    things = list(_things(entries))
    found = [one for one in things if kind in (None, one[0]) and name in (None, one[1])]
    if not found:
        asked = " ".join(word for word in (kind, name) if word is not None)
        there = ", ".join(" ".join(one) for one in things) or "nothing"
        raise ValueError(
            f"plug-in {plugin.name} registers {there}"
            + (f"; asked for {asked}" if asked else "; see docs/tasks/write_a_plugin.md")
        )
    return found


def _things(entries: dict[str, tuple[str, ...]]) -> Iterator[Thing]:
    # In the order of the registries, which puts figures behind what they show.
    for kind in plugins.kinds():
        for name in entries.get(kind, ()):
            yield kind, name
