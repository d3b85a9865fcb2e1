"""Command lines whose commands are entry points, each imported when it is run.

Entry points keep the rooms apart: the science knows no sweeps, and yet `gigatok launch` works. An
installed package adds a command in the same way, by the group `gigatok.commands`.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from gigatok.commands.answering import answering
from gigatok.startup import PACKAGES

GROUP = "gigatok.commands"


def application(help: str, *, within: str = "", completion: bool = False) -> typer.Typer:
    """Make a command line of entry points.

    Args:
        help: text of `--help`.
        within: only commands of this package; by default all.
        completion: offer to install the completion of a shell.
    """
    # Typer takes a class, not an object.
    group = type("CommandGroup", (LazyGroup,), {"within": within})
    app = typer.Typer(
        cls=group,
        no_args_is_help=True,
        add_completion=completion,
        # Typer's own tracebacks may print local variables, such as a URI with its password.
        pretty_exceptions_enable=False,
        # Typer keeps every line end but those of the first paragraph.
        help="\n\n".join(" ".join(part.split()) for part in help.split("\n\n")),
    )
    app.callback()(lambda: None)  # without one, Typer takes an empty application for a mistake
    return app


class LazyGroup(TyperGroup):
    """Group of commands of which `--help` and completion need no more than their names."""

    within: ClassVar[str]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._points = {
            name: point
            for name, point in commands().items()
            if f"{point.module}.".startswith(f"{self.within}." if self.within else "")
        }
        # Names alone: they are what Typer lists, and compares with a name that is misspelt.
        self.commands.update({name: TyperCommand(name) for name in self._points})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Describe a command for `--help` and completion, without importing it."""
        point = self._points.get(cmd_name)
        return None if point is None else TyperCommand(cmd_name, help=described(point))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is run, or of which an argument is completed."""
        name, _, rest = super().resolve_command(ctx, args)
        point = self._points[str(name)]
        try:
            return name, loaded(point), rest
        except Exception as error:
            if _is_ours(point):
                raise
            ctx.fail(f"{name} is broken: {point.value}: {type(error).__name__}: {error}")


@cache
def commands() -> dict[str, EntryPoint]:
    """Find the commands of this program and of installed packages, sorted by name."""
    clone = list(_of_clone())
    # What is installed of this program may be another version than the clone.
    others = [p for p in entry_points(group=GROUP) if not (clone and _is_ours(p))]
    # Ours last, so that no package takes the name of one of them.
    points = sorted([*others, *clone], key=_is_ours)
    found = {point.name: point for point in points}
    return dict(sorted(found.items()))


def _of_clone() -> Iterator[EntryPoint]:
    """Read the commands of a clone, installed or not, from where installing finds them."""
    file = Path(__file__).resolve().parents[2] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    # An installed package may have left a file of this name among the others.
    points = project.get("project", {}).get("entry-points", {}).get(GROUP, {})
    return (EntryPoint(name, value, GROUP) for name, value in points.items())


def _is_ours(point: EntryPoint) -> bool:
    return point.module.partition(".")[0] in PACKAGES


def described(point: EntryPoint) -> str:
    """Read the first line of a command's docstring, or of its module's, without importing it."""
    try:
        spec = find_spec(point.module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception as error:  # of a package that is broken, and must not break `--help`
        return f"broken: {type(error).__name__}: {error}"
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    function = next((node for node in functions if node.name == point.attr), None)
    return (ast.get_docstring(function or tree) or "").partition("\n")[0]


def loaded(point: EntryPoint) -> Any:
    """Import a command: a group that Typer describes, or a function that becomes one command."""
    found = point.load()
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    app = typer.Typer(add_completion=False)
    app.command(point.name)(answering(found))
    return typer.main.get_command(app)
