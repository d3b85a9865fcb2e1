"""Space of a search: key -> a range of numbers or a list of values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestration.sweep.axes import Axes
from orchestration.sweep.config_keys import RANK_AXIS, Checker, Key, Setting, trial_keys
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    did_you_mean,
    entries,
    listed,
    show,
)
from orchestration.yaml.values import flag, positive

RANGE_KEYS = ("low", "high", "log", "step")


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
    node: Node | None,
    block: Node,
    axes: Axes,
    checker: Checker,
    overrides: Mapping[str, Setting],
) -> dict[str, SearchedKey]:
    """Read the checked space, without keys that have a problem or that `--set` fixes."""
    problems = checker.problems
    example = "; write `generator.lr: {low: 1e-4, high: 1e-2, log: true}`"
    space: dict[str, SearchedKey] = {}
    nodes = entries(node, "search.space", problems, example)
    taken = {*axes.axes, *(key for group in axes.groups for key in group), *axes.written_set}
    for key, item in nodes.items():
        where = f"search.space.{key}"
        if key in taken:
            text = "stands in axes, zip or set as well; keep one"
            problems.append(Problem(item.key_place, where, text))
        dimension = _dimension(key, item, where, checker)
        if dimension is not None and key not in overrides:
            space[key] = dimension
    if not nodes:
        place = node.place if node is not None else block.key_place
        text = "missing" if node is None else "is empty"
        problems.append(Problem(place, "search.space", f"{text}{example}"))
    elif all(key in overrides for key in nodes):
        text = "--set fixes every key of it; nothing is left to search"
        problems.append(Problem(block.key_place, "search.space", text))
    return space


def _dimension(key: str, node: Node, where: str, checker: Checker) -> SearchedKey | None:
    known, problems = trial_keys().get(key), checker.problems
    if known is None:
        checker.setting(key, node, where, RANK_AXIS)
        return None
    if known.is_runtime:
        text = "changes how a stage runs, not what it computes, so it cannot vary; use `set`"
        problems.append(Problem(node.key_place, where, text))
        return None
    if isinstance(node.value, tuple):
        return _choices(key, node, where, checker)
    if isinstance(node.value, dict) and not known.is_size and not known.kinds:
        return _range(known, node, where, checker)
    text = f"got {show(node.plain())}; must be a list of values, or {{low, high, log, step}}"
    problems.append(Problem(node.place, where, text))
    return None


def _choices(key: str, node: Node, where: str, checker: Checker) -> SearchedKey | None:
    assert isinstance(node.value, tuple)
    settings = [checker.setting(key, item, where, RANK_AXIS) for item in node.value]
    found = tuple(setting for setting in settings if setting is not None)
    plain = [setting.written for setting in found]
    labels = [v if isinstance(v, str | int | float | None) else json.dumps(v) for v in plain]
    # By `repr`, since 1 and true are equal in Python.
    if len({repr(label) for label in labels}) < len(labels):
        checker.problems.append(Problem(node.place, where, "a value is given twice; keep one"))
    if len(node.value) < 2:
        text = f"got {show(node.plain())}; give two values at least, or put the key into `set`"
        checker.problems.append(Problem(node.place, where, text))
    complete = len(found) == len(node.value) >= 2
    return SearchedKey(Choices(tuple(labels), found), node.place) if complete else None


def _range(key: Key, node: Node, where: str, checker: Checker) -> SearchedKey | None:
    problems, before = checker.problems, len(checker.problems)
    parts = entries(node, where, problems)
    for name, item in parts.items():
        if name not in RANGE_KEYS:
            text = f"unknown key; a range has the keys {listed(RANGE_KEYS)}"
            text += did_you_mean(name, RANGE_KEYS)
            problems.append(Problem(item.key_place, f"{where}.{name}", text))
    # An optional number is "number or null": either of its options may be the one.
    kinds = {option.get("type") for option in key.schema.get("anyOf", [key.schema])}
    if not kinds & {"integer", "number"}:
        text = f"must be {key.allowed}; give a list of values"
        problems.append(Problem(node.place, where, text))
        return None
    ends = [
        _end(key, parts.get(name), node, f"{where}.{name}", checker) for name in RANGE_KEYS[:2]
    ]
    log = flag(parts.get("log"), f"{where}.log", problems)
    step = positive(parts.get("step"), f"{where}.step", problems)
    if len(problems) > before or None in ends:
        return None
    low, high = (float(end) for end in ends if end is not None)
    domain = Range(low, high, log, step, "number" not in kinds)
    wrong = _wrong_range(domain)
    if wrong:
        problems.append(Problem(node.place, where, wrong))
        return None
    return SearchedKey(domain, node.place)


def _end(key: Key, node: Node | None, block: Node, where: str, checker: Checker) -> float | None:
    if node is None:
        checker.problems.append(Problem(block.place, where, f"missing; must be {key.allowed}"))
        return None
    setting = checker.setting(key.name, node, where, RANK_AXIS)
    # A whole-number key may get a bool past no check, but a choice such as `null` is no end.
    if setting is not None and not isinstance(setting.value, int | float):
        text = f"got {show(setting.written)}; must be a number"
        checker.problems.append(Problem(node.place, where, text))
        return None
    return None if setting is None else setting.value


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
