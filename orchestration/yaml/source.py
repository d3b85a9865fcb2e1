"""The one reader of YAML: every value knows its file, line and column, and so does every problem.

PyYAML scans and composes; scalars are read here by the YAML 1.2 core schema, because PyYAML's
YAML 1.1 makes text of `1e-4` and booleans of `on` and `no`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestration.yaml.invisible import any_blank, misleading_blank, unprintable

MAX_NODES = 200_000
"""Values in one file after aliases are written out; stops a file of nested aliases."""
MAX_DEPTH = 30
MAX_DIGITS = 100
SHOWN_PROBLEMS = 50

_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NON_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_SPELLED = {True: "true", False: "false", None: "null"}
_PLAIN = "plain"
_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", _PLAIN)


@dataclass(frozen=True)
class Place:
    """Where something was written: a file with a line from 1, or `--set` without one."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, at which key, and what is allowed instead."""

    place: Place
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.key, self.text) if part)


class SweepError(ValueError):
    """A sweep or scale that cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, title: str, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        count = len(self.problems)
        lines = [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if count > SHOWN_PROBLEMS:
            lines.append(f"  ... and {count - SHOWN_PROBLEMS} more")
        header = f"{title}: {count} problem{'' if count == 1 else 's'}"
        super().__init__("\n".join([header, *lines]))


Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Node:
    """A value with its place; `key_place` is that of its key inside a mapping.

    `text_column` is where the text of a one-line scalar begins, behind its quote if it has one.
    `text` is a scalar as it was written, where its value may be another spelling: `007`, `1e3`.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    place: Place
    key_place: Place
    text_column: int | None = None
    text: str | None = None

    def plain(self) -> Any:
        """The value as ordinary Python: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


def scalar(text: str) -> Scalar:
    """An unquoted scalar by the YAML 1.2 core schema; `1_000_000` is also a number.

    `on`, `off`, `yes` and `no` are text: only `true` and `false` are booleans.
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NON_FINITE.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return text


def show(value: Any) -> str:
    """A value as one would write it in YAML, cut when long."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(show, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}: {show(item)}' for key, item in value.items())}}}"
    elif value is None or isinstance(value, bool):
        text = _SPELLED[value]
    else:
        text = str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(words: Iterable[str]) -> str:
    """The words with commas, or `(none)`."""
    return ", ".join(words) or "(none)"


class _Loader(yaml.SafeLoader):
    """Composes only; marks unquoted scalars instead of resolving them by YAML 1.1."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


class _Construction:
    """Turns one composed document into nodes and collects what is wrong with it."""

    def __init__(self, place: Place, problems: list[Problem]) -> None:
        self.origin = place
        self.problems = problems
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        if self.origin.line is None:
            return self.origin
        return Place(self.origin.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: yaml.Node, key_place: Place | None = None, depth: int = 0) -> Node:
        place = self.place(node)
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            what = f"{MAX_DEPTH} levels" if depth > MAX_DEPTH else f"{MAX_NODES:,} values"
            raise _refusal(
                self.origin.file, Problem(place, "", f"more than {what}, aliases counted")
            )
        if node.tag not in _TAGS:
            text = f"tag {node.tag} is not supported; quote text, leave numbers bare"
            self.problems.append(Problem(place, "", text))
        self._check_characters(node)
        column = _text_column(node, place)
        written = node.value if isinstance(node, yaml.ScalarNode) else None
        return Node(self._value(node, depth), place, key_place or place, column, written)

    def _value(self, node: yaml.Node, depth: int) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.build(item, None, depth + 1) for item in node.value)
        return scalar(node.value) if node.tag == _PLAIN else node.value

    def _check_characters(self, node: yaml.Node) -> None:
        """Name what cannot be seen in a scalar, or harms where it is written or shown."""
        if not isinstance(node, yaml.ScalarNode):
            return
        if (fault := unprintable(node.value)) is not None:
            self.problems.append(Problem(self.place(node), "", fault))
        text, start = str(node.start_mark.buffer), node.start_mark.pointer
        blank = misleading_blank(text[start : node.end_mark.pointer])
        if node.style is None and blank is not None:
            self.problems.append(
                _blank_problem(text, start + blank.start, blank.said, self.origin)
            )

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        items: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(place, "", "a key must be a word, not a list"))
            elif key_node.value in items:
                first = items[key_node.value].key_place
                text = f"duplicate key; first given at line {first.line}; keep one"
                self.problems.append(Problem(place, key_node.value, text))
            else:
                self._check_characters(key_node)
                items[key_node.value] = self.build(value_node, place, depth + 1)
        return items


def _text_column(node: yaml.Node, place: Place) -> int | None:
    one_line = node.start_mark.line == node.end_mark.line
    if not isinstance(node, yaml.ScalarNode) or place.column is None or not one_line:
        return None
    return place.column + (node.style in ("'", '"'))


def _refusal(file: str, problem: Problem) -> SweepError:
    return SweepError(file, [problem])


def _syntax_problem(error: yaml.YAMLError, origin: Place) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    line = None if mark is None or origin.line is None else mark.line + 1
    if "'\\t'" in reason:
        reason += "; indent with spaces, not tabs"
    context = getattr(error, "context", None)
    said = f"not YAML: {reason}" + (f" ({context})" if context else "")
    return Problem(Place(origin.file, line), "", said)


def _blanks_behind(error: yaml.YAMLError, origin: Place) -> list[Problem]:
    """Name a character that only looks like a space, in the lines that an error is about."""
    end: yaml.Mark | None = getattr(error, "problem_mark", None)
    begin: yaml.Mark | None = getattr(error, "context_mark", None) or end
    if end is None or begin is None or end.buffer is None:
        return []
    text = str(end.buffer)
    start = text.rfind("\n", 0, begin.pointer) + 1
    lines = text[start : max(end.pointer, text.find("\n", end.pointer))]
    blank = any_blank(lines)
    return [] if blank is None else [_blank_problem(text, start + blank.start, blank.said, origin)]


def _blank_problem(text: str, index: int, said: str, origin: Place) -> Problem:
    column = index - text.rfind("\n", 0, index)
    line = None if origin.line is None else text.count("\n", 0, index) + 1
    return Problem(Place(origin.file, line, column), "", f"column {column} is {said}")


def parse(text: str, origin: Place, problems: list[Problem]) -> Node | None:
    """The nodes of a document; None for an empty one. Duplicate keys go to `problems`.

    Raises:
        SweepError: the text is not YAML, or too deep or too large once aliases are written out.
    """
    try:
        root = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        found = [*_blanks_behind(error, origin), _syntax_problem(error, origin)]
        raise SweepError(origin.file, found) from None
    except RecursionError:
        raise _refusal(
            origin.file, Problem(origin, "", f"nested too deeply; at most {MAX_DEPTH} levels")
        ) from None
    return None if root is None else _Construction(origin, problems).build(root)


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(file, data.count(b"\n", 0, error.start) + 1)
        text = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise _refusal(file, Problem(place, "", text)) from None


def display(path: Path) -> str:
    """The path as messages show it: relative to the working directory where it lies below it."""
    resolved = path.resolve()
    return (
        str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)
    )


def read_file(path: Path, what: str, keys: Sequence[str], problems: list[Problem]) -> Node:
    """The mapping at the top of a YAML file.

    Args:
        path: the file.
        what: `sweep` or `scale`, for messages.
        keys: keys that such a file may have, for messages.
        problems: receives what can be survived, such as duplicate keys.

    Raises:
        SweepError: the file cannot be read, is not YAML, or is not a mapping.
    """
    file = display(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}; name a {what} file"
        raise _refusal(file, Problem(Place(file), "", reason)) from None
    root = parse(_decode(data, file), Place(file, 1), problems)
    if root is None or not isinstance(root.value, dict):
        given = "the file is empty" if root is None else f"got {show(root.plain())}"
        text = f"{given}; a {what} is a mapping with the keys {listed(keys)}"
        raise _refusal(file, Problem(root.place if root else Place(file, 1), "", text))
    return root


def entries(
    node: Node | None, key: str, problems: list[Problem], example: str = ""
) -> Mapping[str, Node]:
    """The items of a mapping; a missing or null one is empty, anything else a problem."""
    if node is None or node.value is None:
        return {}
    if isinstance(node.value, dict):
        return node.value
    text = f"got {show(node.plain())}; must be a mapping{example}"
    problems.append(Problem(node.place, key, text))
    return {}


def items(
    node: Node | None, key: str, problems: list[Problem], example: str = ""
) -> Sequence[Node]:
    """The items of a list; a missing or null one is empty, anything else a problem."""
    if node is None or node.value is None:
        return ()
    if isinstance(node.value, tuple):
        return node.value
    text = f"got {show(node.plain())}; must be a list{example}"
    problems.append(Problem(node.place, key, text))
    return ()
