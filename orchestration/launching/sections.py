"""Configs in the record of a plan: each distinct section stored once, referenced by its number.

Ten thousand trials share most of their sections, so that a record of them is a few megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import NonNegativeInt

from gigatok.config import SECTIONS, Config, TrialConfig

C = TypeVar("C", bound=Config)

References = tuple[NonNegativeInt, ...]
"""Numbers of a config's values in the table of sections, in the order of its kind's fields."""


class SectionWriter:
    """Table of sections that grows while configs are written.

    Args:
        fields: kinds of configs that may differ in their fields -> all that are to be written.

    Attributes:
        table: the sections, as plain data.
        fields: kind of config -> names of its fields.
    """

    def __init__(self, fields: Mapping[str, tuple[str, ...]]) -> None:
        self.table: list[Any] = []
        self.fields = dict(fields)
        self._by_text: dict[str, int] = {}
        # Most sections are shared as objects: their text is made once. The config is kept in the
        # value, because an id may be given again to another object once its owner is gone.
        self._by_id: dict[int, tuple[Config, int]] = {}

    def write(self, kind: str, config: Config) -> References:
        """Store the values of a config; returns their numbers."""
        if kind not in self.fields:
            self.fields[kind] = tuple(type(config).model_fields)
        return tuple([self._number(getattr(config, name)) for name in self.fields[kind]])

    def _number(self, value: Any) -> int:
        if not isinstance(value, Config):
            return self._add(value)
        if id(value) not in self._by_id:
            self._by_id[id(value)] = (value, self._add(value.model_dump(mode="json")))
        return self._by_id[id(value)][1]

    def _add(self, value: Any) -> int:
        # As text, because 1, 1.0 and true are equal keys of a dict.
        text = json.dumps(value)
        if text not in self._by_text:
            self._by_text[text] = len(self.table)
            self.table.append(value)
        return self._by_text[text]


class SectionReader:
    """Builds configs from a table; sections that configs share become one object."""

    def __init__(self, table: Sequence[Any], fields: Mapping[str, Sequence[str]]) -> None:
        self._table = table
        self._fields = fields
        self._built: dict[tuple[type[Config], int], Config] = {}

    def read(self, kind: str, config: type[C], references: References) -> C:
        """Build a config from the numbers of its values.

        Raises:
            ValidationError: this code has no such fields, or allows other values.
        """
        # Plug-ins add sections to trials, which are no fields of the class.
        types = SECTIONS if config is TrialConfig else _section_types(config)
        named = zip(self._fields[kind], references, strict=True)
        return config(**{name: self._value(types.get(name), number) for name, number in named})

    def _value(self, section: type[Config] | None, number: int) -> Any:
        if section is None:
            return self._table[number]
        known = (section, number)
        if known not in self._built:
            self._built[known] = section.model_validate(self._table[number])
        return self._built[known]


@cache
def _section_types(kind: type[Config]) -> dict[str, type[Config]]:
    """Map the fields that are configs themselves to their types."""
    annotations = {name: field.annotation for name, field in kind.model_fields.items()}
    return {
        name: annotation
        for name, annotation in annotations.items()
        if isinstance(annotation, type) and issubclass(annotation, Config)
    }
