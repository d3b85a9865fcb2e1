"""Single values of a sweep's blocks that are no keys of the trial: words, numbers, flags."""

from __future__ import annotations

import math

from orchestration.yaml.source import Node, Problem, did_you_mean, listed, show


def one_of(
    node: Node | None, key: str, allowed: tuple[str, ...], default: str, problems: list[Problem]
) -> str:
    """One of a few words; the default where it is missing or, after reporting it, another."""
    if node is None or node.value is None:
        return default
    value = node.plain()
    if value not in allowed:
        text = f"got {show(value)}; must be one of {listed(allowed)}{did_you_mean(value, allowed)}"
        problems.append(Problem(node.place, key, text))
        return default
    return str(value)


HIGHEST = 2**32 - 1
"""The largest seed of NumPy's `RandomState`, which Optuna's samplers use; no count needs more."""


def whole(
    node: Node | None,
    key: str,
    default: int,
    low: int,
    problems: list[Problem],
    high: int = HIGHEST,
) -> int:
    """Read a whole number from `low` to `high`; the default where missing or out of range."""
    if node is None or node.value is None:
        return default
    value = node.plain()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value % 1 or not low <= value <= high:
        text = f"got {show(value)}; must be a whole number of at least {low} and at most {high}"
        problems.append(Problem(node.place, key, text))
        return default
    return int(value)


def positive(node: Node | None, key: str, problems: list[Problem]) -> float | None:
    """A number above 0; None where there is none."""
    if node is None or node.value is None:
        return None
    value = node.plain()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        problems.append(Problem(node.place, key, f"got {show(value)}; must be a number above 0"))
        return None
    return float(value)


def flag(node: Node | None, key: str, problems: list[Problem]) -> bool:
    """True or false, by default false."""
    if node is None or node.value is None:
        return False
    if not isinstance(node.value, bool):
        text = f"got {show(node.plain())}; must be true or false"
        problems.append(Problem(node.place, key, text))
    return node.value is True
