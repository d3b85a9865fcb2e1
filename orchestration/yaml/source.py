"""Reader of every YAML file of a user: each value, and so each problem, knows file and line.

PyYAML scans and composes. Scalars are read here by the YAML 1.2 core schema, because PyYAML's YAML
1.1 makes text of `1e-4` and booleans of `on` and `no`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestration.yaml.invisible import any_blank, misleading_blank, unprintable

MAX_NODES = 200_000
"""Most values in one file with aliases written out; stops a file of nested aliases."""
# Far deeper than any key; the recursive build below must not reach Python's limit.
MAX_DEPTH = 30
# Longer digits stay text: no key takes such a number, and `int` is slow on it or raises.
MAX_DIGITS = 100
SHOWN_PROBLEMS = 50

_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NON_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Complete list of YAML 1.2: `on`, `off`, `yes`, `no` are text there.
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_SPELLED = {True: "true", False: "false", None: "null"}
# Own tag for unquoted scalars: by its tag, `"1"` in quotes is told from a bare 1.
_PLAIN = "plain"
_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", _PLAIN)


@dataclass(frozen=True)
class Place:
    """Place of a value: a file with a line counted from 1, or `--set` without a line."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """Problem with one value: its place, its key, and what is allowed instead."""

    place: Place
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.key, self.text) if part)


class SweepError(ValueError):
    """Error about an unusable sweep or scale; `problems` holds all that is wrong with it."""

    def __init__(self, title: str, problems: Iterable[Problem]) -> None:
        # A value that is read twice, at its scale and for other scales, is reported once.
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
    """Value with its place; `key_place` is the place of its key inside a mapping.

    `text_column` is the column of the text of a one-line scalar, behind a quote if it has one.
    `text` is a scalar as it was written, which its value may not show: `007`, `1e3`.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    place: Place
    key_place: Place
    text_column: int | None = None
    text: str | None = None

    def plain(self) -> Any:
        """Convert the value to ordinary Python: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value


def scalar(text: str) -> Scalar:
    """Read an unquoted scalar by the YAML 1.2 core schema; `1_000_000` is also a number.

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
        # Python's `float` spells them without the dot.
        return float(text.lower().replace(".", ""))
    return text


def show(value: Any) -> str:
    """Write a value as one would write it in YAML, shortened if it is long."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(show, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}: {show(item)}' for key, item in value.items())}}}"
    # Before numbers: a bool is an `int`, and would be shown as Python's True.
    elif value is None or isinstance(value, bool):
        text = _SPELLED[value]
    else:
        text = str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Suggest the nearest known word, as `; did you mean 'x'?`; empty if none is near."""
    near = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def listed(words: Iterable[str]) -> str:
    """Join the words with commas; `(none)` if there are none."""
    return ", ".join(words) or "(none)"


class _Loader(yaml.SafeLoader):
    """Loader that only composes, and marks unquoted scalars instead of resolving them."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        # `implicit[0]` is true for an unquoted scalar without a tag.
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


class _Construction:
    """Construction of nodes from one composed document; collects the problems."""

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
        # An alias is the same object as its anchor, but counts and is built again at each use: a
        # few lines of nested aliases stand for billions of values ("billion laughs").
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            what = f"{MAX_DEPTH} levels" if depth > MAX_DEPTH else f"{MAX_NODES:,} values"
            problem = Problem(place, "", f"more than {what}, aliases counted")
            raise SweepError(self.origin.file, [problem])
        if node.tag not in _TAGS:
            text = f"tag {node.tag} is not supported; quote text, leave numbers bare"
            # Reading goes on: all problems of a file are to be reported at once.
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
        """Report characters of a scalar that cannot be seen, or that harm a terminal or a file."""
        if not isinstance(node, yaml.ScalarNode):
            return
        if (fault := unprintable(node.value)) is not None:
            self.problems.append(Problem(self.place(node), "", fault))
        text, start = str(node.start_mark.buffer), node.start_mark.pointer
        blank = misleading_blank(text[start : node.end_mark.pointer])
        # Only in unquoted text: within quotes a blank is what the user asked for.
        if node.style is None and blank is not None:
            self.problems.append(
                _blank_problem(text, start + blank.start, blank.said, self.origin)
            )

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        items: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                # A key must be one word: every key of a sweep is a dotted name.
                self.problems.append(Problem(place, "", "a key must be a word, not a list"))
            # PyYAML would silently keep the last of two equal keys.
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
    # A bool counts as 1: the text begins one column behind the quote.
    return place.column + (node.style in ("'", '"'))


def _syntax_problem(error: yaml.YAMLError, origin: Place) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    # `--set` has no lines, so a line of its text would mislead.
    line = None if mark is None or origin.line is None else mark.line + 1
    if "'\\t'" in reason:
        reason += "; indent with spaces, not tabs"
    context = getattr(error, "context", None)
    said = f"not YAML: {reason}" + (f" ({context})" if context else "")
    return Problem(Place(origin.file, line), "", said)


def _blanks_behind(error: yaml.YAMLError, origin: Place) -> list[Problem]:
    """Find a character that only looks like a space, in the lines that a syntax error concerns."""
    end: yaml.Mark | None = getattr(error, "problem_mark", None)
    begin: yaml.Mark | None = getattr(error, "context_mark", None) or end
    if end is None or begin is None or end.buffer is None:
        return []
    text = str(end.buffer)
    start = text.rfind("\n", 0, begin.pointer) + 1
    # PyYAML reports where it gave up, which may be a line below the character.
    lines = text[start : max(end.pointer, text.find("\n", end.pointer))]
    blank = any_blank(lines)
    return [] if blank is None else [_blank_problem(text, start + blank.start, blank.said, origin)]


def _blank_problem(text: str, index: int, said: str, origin: Place) -> Problem:
    column = index - text.rfind("\n", 0, index)
    line = None if origin.line is None else text.count("\n", 0, index) + 1
    return Problem(Place(origin.file, line, column), "", f"column {column} is {said}")


def parse(text: str, origin: Place, problems: list[Problem]) -> Node | None:
    """Parse a document into nodes; None if it is empty. Duplicate keys go to `problems`.

    Raises:
        SweepError: the text is not YAML, or too deep or too large once aliases are written out.
    """
    try:
        root = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        found = [*_blanks_behind(error, origin), _syntax_problem(error, origin)]
        raise SweepError(origin.file, found) from None
    # PyYAML composes recursively, and meets the limit before `MAX_DEPTH` can be counted.
    except RecursionError:
        problem = Problem(origin, "", f"nested too deeply; at most {MAX_DEPTH} levels")
        raise SweepError(origin.file, [problem]) from None
    return None if root is None else _Construction(origin, problems).build(root)


def _decode(data: bytes, file: str) -> str:
    try:
        # Editors on Windows begin a file with a byte order mark; "utf-8-sig" drops it.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(file, data.count(b"\n", 0, error.start) + 1)
        text = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise SweepError(file, [Problem(place, "", text)]) from None


def display(path: Path) -> str:
    """Show a path as messages do: relative to the working directory if it lies below it."""
    resolved = path.resolve()
    return (
        str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)
    )


def read_file(path: Path, what: str, keys: Sequence[str], problems: list[Problem]) -> Node:
    """Read the mapping at the top of a YAML file.

    Args:
        path: the file.
        what: `sweep` or `scale`, for messages.
        keys: keys that such a file may have, for messages.
        problems: receives problems that do not stop the reading, such as duplicate keys.

    Raises:
        SweepError: the file cannot be read, is not YAML, or is not a mapping.
    """
    file = display(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}; name a {what} file"
        raise SweepError(file, [Problem(Place(file), "", reason)]) from None
    root = parse(_decode(data, file), Place(file, 1), problems)
    if root is None or not isinstance(root.value, dict):
        given = "the file is empty" if root is None else f"got {show(root.plain())}"
        text = f"{given}; a {what} is a mapping with the keys {listed(keys)}"
        raise SweepError(file, [Problem(root.place if root else Place(file, 1), "", text)])
    return root
