"""Space of a search: key -> a range of numbers or a list of values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestration.sweep.grid.axes import Axes
from orchestration.sweep.settings.keys import Key, find_varying
from orchestration.sweep.settings.settings import RANK_AXIS, Setting, SizeNames
from orchestration.yaml.parts import Part
from orchestration.yaml.source import Place, listed
from orchestration.yaml.values import ABOVE_ZERO, FLAG


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step:g}"
        kind = "whole numbers " if self.whole else ""
        return f"{kind}{self.low:g} to {self.high:g}{', log' if self.log else ''}{step}"

    def as_json(self) -> Any:
        """Return the range as it was written."""
        return asdict(self)

    def values(self) -> tuple[float, ...] | None:
        """List all values in order; None if they cannot be counted."""
        # Whole numbers have a step of one, except on a log range, which is sampled as a continuum.
        step = 1 if self.whole and self.step is None and not self.log else self.step
        if step is None:
            return None
        return tuple(self.low + i * step for i in range(self.steps(step) + 1))

    def steps(self, step: float) -> int:
        """Count the steps that fit between the ends."""
        # The tolerance keeps the upper end: (0.3 - 0.1) / 0.1 is 1.9999999999999998.
        return math.floor((self.high - self.low) / step + 1e-9)


@dataclass(frozen=True)
class Choices:
    """List of values in the file's order; Optuna knows each by its label."""

    # Optuna stores only these kinds; other values are labelled by their JSON.
    labels: tuple[str | float | int | bool | None, ...]
    settings: tuple[Setting, ...]

    def __str__(self) -> str:
        return f"one of {listed(map(str, self.labels))}"

    def as_json(self) -> Any:
        """Return the values as they were written."""
        return list(self.labels)


@dataclass(frozen=True)
class SearchedKey:
    """Searched key with its domain."""

    domain: Range | Choices
    place: Place

    def setting(self, key: str, value: Any) -> Setting:
        """Convert a suggested value into a setting of the trial."""
        where = f"search.space.{key}"
        if isinstance(self.domain, Choices):
            return self.domain.settings[_position(self.domain.labels, value)]
        # Optuna returns every number of a range as a float.
        value = int(value) if self.domain.whole else float(value)
        return Setting(value, value, self.place, where, RANK_AXIS)

    def first(self) -> Any:
        """Return one suggestion that is possible."""
        return self.domain.low if isinstance(self.domain, Range) else self.domain.labels[0]


def _position(labels: tuple[Any, ...], value: Any) -> int:
    """Find the position of a label; 1, 1.0 and true are three different labels."""
    for index, label in enumerate(labels):
        if type(label) is type(value) and label == value:
            return index
    # A label that came back through JSON may have changed its type: 1.0 for 1.
    return labels.index(value)


# Reading


def read_space(
    part: Part, axes: Axes, names: SizeNames, overrides: Mapping[str, Setting]
) -> dict[str, SearchedKey]:
    """Read the checked space, without keys that have a problem or that `--set` fixes."""
    example = "; write `generator.lr: {low: 1e-4, high: 1e-2, log: true}`"
    space: dict[str, SearchedKey] = {}
    parts = part.mapping(example)
    taken = {*axes.axes, *(key for group in axes.groups for key in group), *axes.written_set}
    for key, item in parts.items():
        if key in taken:
            item.report_key("stands in axes, zip or set as well; keep one")
        searched = _searched(key, item, names)
        if searched is not None and key not in overrides:
            space[key] = searched
    if not part.is_given:
        part.report_key(f"missing{example}")
    elif not parts:
        part.report(f"is empty{example}")
    elif all(key in overrides for key in parts):
        part.report_key("--set fixes every key of it; nothing is left to search")
    return space


def _searched(key: str, part: Part, names: SizeNames) -> SearchedKey | None:
    known = find_varying(key, part)
    if known is None:
        return None
    if part.is_list:
        return _choices(key, part, names)
    if part.is_mapping and not known.is_size and not known.kinds:
        return _range(known, part)
    part.report_wrong("a list of values, or {low, high, log, step}")
    return None


def _choices(key: str, part: Part, names: SizeNames) -> SearchedKey | None:
    parts = part.items()
    settings = names.settings(key, parts)
    plain = [setting.written for setting in settings]
    labels = [v if isinstance(v, str | int | float | None) else json.dumps(v) for v in plain]
    # By `repr`, since 1 and true are equal in Python.
    if len({repr(label) for label in labels}) < len(labels):
        part.report("a value is given twice; keep one")
    if len(parts) < 2:
        part.report_wrong("two values at least; put a single one into `set`")
    complete = len(settings) == len(parts) >= 2
    return SearchedKey(Choices(tuple(labels), settings), part.place) if complete else None


def _range(key: Key, part: Part) -> SearchedKey | None:
    # An optional number is "number or null": either of its options may be the one.
    kinds = {option.get("type") for option in key.schema.get("anyOf", [key.schema])}
    if not kinds & {"integer", "number"}:
        part.report(f"must be {key.allowed}; give a list of values")
        return None
    before = len(part.problems)
    kinds_of_parts = {"low": key.type, "high": key.type, "log": FLAG, "step": ABOVE_ZERO}
    values = part.fields(kinds_of_parts, "a range", ("low", "high"))
    if len(part.problems) > before:
        return None
    # An optional key may also be a choice such as a word, which is no end.
    for name in ("low", "high"):
        if not isinstance(values[name], int | float):
            part.part(name).report_wrong("a number")
            return None
    low, high = float(values["low"]), float(values["high"])
    log, step = values.get("log", False), values.get("step")
    domain = Range(low, high, log, step, "number" not in kinds)
    wrong = _wrong_range(domain)
    if wrong:
        part.report(wrong)
        return None
    return SearchedKey(domain, part.place)


def _wrong_range(domain: Range) -> str | None:
    if domain.low >= domain.high:
        return f"low {domain.low:g} is not below high {domain.high:g}"
    # Each would surprise in Optuna only when the first trial is asked for, hours later.
    if domain.log and domain.low <= 0:
        return f"low {domain.low:g} has no logarithm; give a low above 0, or log: false"
    if domain.log and domain.step is not None:
        return "log and step do not go together; give one of them"
    if domain.whole and domain.step is not None and domain.step % 1:
        return f"step {domain.step:g} must be a whole number, as the key's values are"
    if domain.step is not None and domain.steps(domain.step) < 1:
        return f"step {domain.step:g} is larger than the range"
    return None
