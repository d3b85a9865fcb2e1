"""Parts of a user's file: values under their keys, which report what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestration.yaml.source import Node, Place, Problem, did_you_mean, listed, show
from orchestration.yaml.values import ValueType


@dataclass(frozen=True)
class Part:
    """Value of a file under its key.

    Attributes:
        node: the value; a null at the place of its mapping if that has no such key.
        problems: list that receives everything that is wrong; all parts of a file share it.
        key: as messages name it, such as `search.pruner.every`; empty at the top.
        is_given: false if the mapping has no such key.
    """

    node: Node = field(repr=False)
    problems: list[Problem] = field(repr=False, compare=False)
    key: str = ""
    is_given: bool = True

    @property
    def is_null(self) -> bool:
        """True if there is no value, which a key without one means in YAML as well."""
        return self.node.value is None

    @property
    def is_list(self) -> bool:
        """True if the value is a list."""
        return isinstance(self.node.value, tuple)

    @property
    def is_mapping(self) -> bool:
        """True if the value is a mapping."""
        return isinstance(self.node.value, dict)

    @property
    def place(self) -> Place:
        """Place of the value."""
        return self.node.place

    @property
    def line(self) -> int | None:
        """Line of the key, for messages that point to another place."""
        return self.node.key_place.line

    def plain(self) -> Any:
        """Convert the value to ordinary Python: dicts, lists and scalars."""
        return self.node.plain()

    def report(self, text: str) -> None:
        """Report a problem with the value."""
        self.problems.append(Problem(self.place, self.key, text))

    def report_wrong(self, allowed: str) -> None:
        """Report the value, and what is allowed instead."""
        self.report(f"got {show(self.plain())}; must be {allowed}")

    def report_key(self, text: str) -> None:
        """Report a problem with the key, at its place."""
        self.problems.append(Problem(self.node.key_place, self.key, text))

    def mapping(self, example: str = "") -> dict[str, Part]:
        """Return the parts of a mapping, none of a null; anything else is reported."""
        if isinstance(self.node.value, dict):
            return {name: self.part(name) for name in self.node.value}
        if not self.is_null:
            self.report_wrong(f"a mapping{example}")
        return {}

    def part(self, name: str) -> Part:
        """Return the part of a mapping under a key, given or not."""
        found = self.node.value.get(name) if isinstance(self.node.value, dict) else None
        node = found or Node(None, self.place, self.node.key_place)
        return Part(node, self.problems, f"{self.key}.{name}".lstrip("."), found is not None)

    def items(self, example: str = "") -> list[Part]:
        """Return the items of a list under its own key, none of a null; else it is reported."""
        if isinstance(self.node.value, tuple):
            return [replace(self, node=item) for item in self.node.value]
        if not self.is_null:
            self.report_wrong(f"a list{example}")
        return []

    def numbered(self, example: str = "") -> list[Part]:
        """Return the items of a list, each under its number, such as `exclude[0]`."""
        items = enumerate(self.items(example))
        return [replace(item, key=f"{self.key}[{index}]") for index, item in items]

    def check_keys(
        self, known: Iterable[str], what: str, hints: Mapping[str, str] | None = None
    ) -> None:
        """Report every key that `what` does not have; `hints` are about wrong keys."""
        known = tuple(known)
        for name, part in self.mapping().items() if self.is_mapping else ():
            if name not in known:
                text = f"unknown key; {what} has the keys {listed(known)}"
                part.report_key(text + did_you_mean(name, known) + (hints or {}).get(name, ""))

    def text(self) -> str:
        """Read a text; empty if it is missing or, after a report, anything else."""
        if isinstance(self.node.value, str):
            return self.node.value.strip()
        if not self.is_null:
            self.report_wrong("text; quote it")
        return ""

    def read(self, kind: ValueType, default: Any = None, example: str = "") -> Any:
        """Read a value of a type; the default if it is missing or, after a report, wrong."""
        if self.is_null:
            return default
        try:
            return kind.check(self.plain())
        except ValueError as error:
            self.report(f"{error}{example}")
            return default

    def fields(
        self, kinds: Mapping[str, ValueType], what: str, required: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Read a mapping of single values; those that are missing or wrong are left out.

        Args:
            kinds: key -> type of its value.
            what: noun for messages, such as `a size`.
            required: keys whose absence is reported.
        """
        self.check_keys(kinds, what)
        for name in required:
            if self.part(name).is_null:
                self.part(name).report(f"missing; must be {kinds[name].allowed}")
        read = {name: self.part(name).read(kind) for name, kind in kinds.items()}
        return {name: value for name, value in read.items() if value is not None}
