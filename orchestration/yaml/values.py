"""Readers of single values in a sweep's blocks, such as a word, a number or a flag."""

from __future__ import annotations

import math

from orchestration.yaml.source import Node, Problem, did_you_mean, listed, show


def one_of(
    node: Node | None, key: str, allowed: tuple[str, ...], default: str, problems: list[Problem]
) -> str:
    """Read one of a few words; the default if it is missing or, after a report, another word."""
    if node is None or node.value is None:
        return default
    value = node.plain()
    if value not in allowed:
        text = f"got {show(value)}; must be one of {listed(allowed)}{did_you_mean(value, allowed)}"
        problems.append(Problem(node.place, key, text))
        return default
    return str(value)


HIGHEST = 2**32 - 1
"""Largest seed of NumPy's `RandomState`, which Optuna's samplers use; enough for any count."""


def whole(
    node: Node | None,
    key: str,
    default: int,
    low: int,
    problems: list[Problem],
    high: int = HIGHEST,
) -> int:
    """Read a whole number from `low` to `high`; the default if it is missing or out of range."""
    if node is None or node.value is None:
        return default
    value = node.plain()
    # A bool is an `int` in Python, but `true` is no count; `1e3` is a float, but a whole number.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value % 1 or not low <= value <= high:
        text = f"got {show(value)}; must be a whole number of at least {low} and at most {high}"
        problems.append(Problem(node.place, key, text))
        return default
    return int(value)


def positive(node: Node | None, key: str, problems: list[Problem]) -> float | None:
    """Read a number above 0; None if it is missing or, after a report, anything else."""
    if node is None or node.value is None:
        return None
    value = node.plain()
    # NaN fails this comparison as well.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        problems.append(Problem(node.place, key, f"got {show(value)}; must be a number above 0"))
        return None
    return float(value)


def flag(node: Node | None, key: str, problems: list[Problem]) -> bool:
    """Read true or false; false if it is missing."""
    if node is None or node.value is None:
        return False
    if not isinstance(node.value, bool):
        text = f"got {show(node.plain())}; must be true or false"
        problems.append(Problem(node.place, key, text))
    return node.value is True
