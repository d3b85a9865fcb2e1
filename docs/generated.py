"""Fill the generated parts of the site from the code: commands, keys, profiles, metrics.

MkDocs calls `on_page_markdown` for each page. A comment `<!-- generated: NAME ARGUMENT -->` in a
page is replaced by what the function of that name below returns, so that no table can be stale.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import typer
import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gigatok import names
from gigatok.config import FOUND, TrialConfig
from orchestration.policy.profile import Profile, Request

ROOT = Path(__file__).resolve().parent.parent
MARK = "<!-- generated: "


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page; MkDocs calls this before it renders."""
    return "\n".join(_line(line) for line in markdown.split("\n"))


def _line(line: str) -> str:
    if not line.startswith(MARK):
        return line
    name, *arguments = line.removeprefix(MARK).removesuffix("-->").split()
    return GENERATORS[name](*arguments)


class _Caught(BaseException):
    """Carry a Typer application out of the module that would run it."""


@cache
def command_line(module: str) -> Any:
    """Return the parser behind `python -m MODULE`, without running the command."""
    try:
        with _catching(), warnings.catch_warnings():
            # A module that is imported already runs twice, which is harmless up to its parser.
            warnings.simplefilter("ignore", RuntimeWarning)
            # As `python -m` does it: some modules define an application, others call typer.run.
            runpy.run_module(module, run_name="__main__")
    except _Caught as found:
        return typer.main.get_command(found.args[0])
    raise ValueError(f"python -m {module} is no command line")


@contextmanager
def _catching() -> Iterator[None]:
    """Let every Typer application raise itself instead of running."""

    def caught(application: typer.Typer, *_: Any, **__: Any) -> None:
        raise _Caught(application)

    run = typer.Typer.__call__
    typer.Typer.__call__ = caught
    try:
        yield
    finally:
        typer.Typer.__call__ = run


def commands(*names: str) -> str:
    """List commands of `gigatok`, and those below them, with their arguments and options."""
    program = command_line("gigatok")
    found = (_commands(f"gigatok {name}", _below(program, name)) for name in names)
    return "\n\n".join(text for texts in found for text in texts)


def _below(group: Any, name: str) -> Any:
    """Find a command of a group, which may import it only now."""
    _, command, _ = group.resolve_command(group.make_context("", [name]), [name])
    return command


def _commands(usage: str, command: Any) -> Iterator[str]:
    # A group that does nothing by itself has no line of its own.
    if getattr(command, "invoke_without_command", True):
        yield _command(usage, command)
    for name in getattr(command, "commands", {}):
        yield from _commands(f"{usage} {name}", _below(command, name))


def _command(usage: str, command: Any) -> str:
    lines = [f"### `{usage}`", "", inspect.cleandoc(command.help or ""), ""]
    rows = [row for parameter in command.params if (row := _parameter(parameter))]
    if rows:
        lines += ["| argument or option | meaning | default |", "|---|---|---|", *rows]
    return "\n".join(lines)


def _parameter(parameter: Any) -> str | None:
    if parameter.name == "help":
        return None
    is_option = parameter.opts[0].startswith("-")
    written = ", ".join(parameter.opts) if is_option else f"{parameter.name.upper()}"
    if is_option and not getattr(parameter, "is_flag", False):
        written += f" {parameter.metavar or 'VALUE'}"
    default = "required" if parameter.required else _default(parameter.default)
    return f"| `{written}` | {_cell(parameter.help or '')} | {default} |"


def _default(value: Any) -> str:
    if value is None or value is False or callable(value):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def keys(section: str) -> str:
    """List the keys of one section of a trial, with type, default and meaning."""
    kind = TrialConfig.model_fields[section].annotation
    lines = [inspect.cleandoc(str(kind.__doc__)), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *_key_rows(f"{section}.", kind)])


def _key_rows(prefix: str, kind: Any) -> Iterator[str]:
    meanings = field_docstrings(kind)
    for name in sorted(kind.model_fields, key=lambda name: _definer(kind, name)):
        field = kind.model_fields[name]
        if FOUND in field.metadata:
            continue
        inner = field.annotation
        key = f"{prefix}{name}"
        if key not in schema() and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _key_rows(f"{key}.", inner)
            continue
        # The schema lets only those keys vary that are part of a stage's key.
        note = "" if key in schema()["axes"]["properties"] else " *Not part of a stage's key.*"
        default = "required" if field.is_required() else f"`{json.dumps(_plain(field.default))}`"
        meaning = _cell(meanings.get(name, "")) + note
        yield f"| `{key}` | {_cell(_allowed(schema()[key]))} | {default} | {meaning.strip()} |"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _definer(kind: type, name: str) -> int:
    """Tell which of the bases defines a field: its place, the class itself last."""
    first, *bases = kind.__mro__
    order = [*bases, first]
    return next(n for n, base in enumerate(order) if name in inspect.get_annotations(base))


@cache
def schema() -> Mapping[str, Any]:
    """Load the definitions of the JSON schema that editors check sweeps against."""
    file = ROOT / "sweeps" / "sweep.schema.json"
    definitions: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))["$defs"]
    return definitions


def _allowed(part: Mapping[str, Any]) -> str:
    """Say in words which values a schema allows."""
    if "$ref" in part:
        return "width, layers, heads"
    if "anyOf" in part:
        return " or ".join(_allowed(option) for option in part["anyOf"])
    if "properties" in part:  # one of several configs
        inner = part["properties"].items()
        named = [f"{name}: {p['const']}" if "const" in p else name for name, p in inner]
        return f"`{{{', '.join(named)}}}`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {_allowed(part['items'])}"
    kind = {"integer": "whole number", "string": "text", "boolean": "true or false"}
    text = kind.get(str(part.get("type")), str(part.get("type")))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {part[name]}" for name, sign in signs.items() if name in part]
    return " ".join([text, *bounds])


@cache
def field_docstrings(kind: type) -> Mapping[str, str]:
    """Read the docstrings below the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed([b for b in kind.__mro__ if b.__module__.startswith(_PACKAGES)]):
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(node, ast.ClassDef)
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                value = ast.literal_eval(text.value)
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = inspect.cleandoc(value)
    return found


_PACKAGES = ("gigatok", "orchestration")


def profile() -> str:
    """List the keys of a profile, then those of what a stage asks for."""
    parts = [("Keys of a profile", Profile), ("Keys of `default` and of each stage", Request)]
    return "\n\n".join(f"## {title}\n\n{_fields(kind)}" for title, kind in parts)


def _fields(kind: type[BaseModel]) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default is PydanticUndefined or isinstance(default, BaseModel) else default
        text = "" if shown == "" else f"`{json.dumps(shown)}`"
        lines.append(f"| `{name}` | {text} | {_cell(field_docstrings(kind).get(name, ''))} |")
    return "\n".join(lines)


def metrics() -> str:
    """List the final scores with label, unit and direction."""
    lines = ["| name | label | unit | better |", "|---|---|---|---|"]
    for metric in names.METRICS.values():
        unit, better = metric.unit, metric.better or ""
        lines.append(f"| `{metric.name}` | {metric.label} | {unit} | {better} |")
    return "\n".join(lines)


def include(path: str) -> str:
    """Return a Markdown file of the repository without its title, for a page one folder deep."""
    text = (ROOT / path).read_text(encoding="utf-8").partition("\n")[2]
    return re.sub(r"`docs/([\w/]+)\.md`", r"[\1](../\1.md)", text)


GENERATORS: Mapping[str, Callable[..., str]] = {
    "commands": commands,
    "keys": keys,
    "profile": profile,
    "metrics": metrics,
    "include": include,
}
