"""Axes of a study as its settings show them, and which settings differ in one axis alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.statistics.groups import Group, short, show
from gigatok.names import PARAM_TOKENIZER

MOVES = 1.25
"""Factor by which a key must change a size to count as what sets it. A smaller change is a
by-product, as a larger codebook adds some parameters: such settings are no family of sizes."""
Values = tuple[Any, ...]
"""Values of an axis' columns in one setting."""


@dataclass(frozen=True)
class Axis:
    """Columns that vary together, as in a zip; most axes are one column.

    Attributes:
        columns: keys of the settings' identity.
        steps: pairs of values that are compared: the ends of what has an order, and of values
            without one the first with each other.
    """

    columns: tuple[str, ...]
    steps: tuple[tuple[Values, Values], ...]

    def words(self, values: Values) -> str:
        """Name one place on the axis, such as `codebook_size=16`."""
        pairs = zip(self.columns, values, strict=True)
        return " ".join(
            show(v) if c == PARAM_TOKENIZER else f"{short(c)}={show(v)}" for c, v in pairs
        )

    def step_words(self, step: tuple[Values, Values]) -> str:
        """Name a step along the axis, such as `codebook_size 16 → 64`."""
        first, last = step
        parts = []
        for column, one, other in zip(self.columns, first, last, strict=True):
            name = "" if column == PARAM_TOKENIZER else f"{short(column)} "
            parts.append(f"{name}{show(one)} → {show(other)}")
        return ", ".join(parts)


def differing(first: Group, last: Group) -> Axis:
    """Take the columns in which two settings differ as an axis with one step."""
    columns = tuple(c for c, value in first.identity.items() if value != last.identity[c])
    return Axis(columns, ((values_of(first, columns), values_of(last, columns)),))


def shared_by_all(found: Sequence[Group]) -> str:
    """Name what all settings share of their labels; empty where labels share nothing."""
    first = found[0].identity if found else {}
    same = [c for c in first if len({show(group.identity[c]) for group in found}) == 1]
    return found[0].words(same) if same else ""


def axes_of(found: Sequence[Group]) -> list[Axis]:
    """Find what varies: columns that determine each other, as in a zip, are one axis."""
    bundles: list[list[str]] = []
    columns = list(found[0].identity) if found else []
    values = {c: [show(group.identity[c]) for group in found] for c in columns}
    for column in columns:
        if len(set(values[column])) < 2:
            continue
        for bundle in bundles:
            pairs = set(zip(values[bundle[0]], values[column], strict=True))
            if len(pairs) == len(set(values[bundle[0]])) == len(set(values[column])):
                bundle.append(column)
                break
        else:
            bundles.append([column])
    return [Axis(tuple(bundle), _steps(tuple(bundle), found)) for bundle in bundles]


def alike(found: Sequence[Group], but: Collection[str]) -> list[list[Group]]:
    """Collect families of settings that agree in everything but some columns, in their order."""
    families: dict[object, list[Group]] = {}
    for group in found:
        rest = tuple((k, v) for k, v in group.identity.items() if k not in but)
        families.setdefault(rest, []).append(group)
    return list(families.values())


def ladders(found: Sequence[Group]) -> list[list[Group]]:
    """Collect settings that differ in one axis alone, two or more, in the axis' order.

    Tokenizers are ordered by parameters, numbers ascending. Values without an order, such as kinds
    of quantizers, are each compared with the first as listed.
    """
    result: list[list[Group]] = []
    for axis in axes_of(found):
        for members in alike(found, axis.columns):
            ordered = _ordered(axis.columns, members)
            if ordered is None:
                result += [[members[0], other] for other in members[1:]]
            elif len(ordered) > 1:
                result.append(ordered)
    return result


def values_of(group: Group, columns: Sequence[str]) -> Values:
    """Read where on an axis a setting is."""
    return tuple(group.identity[column] for column in columns)


def place(group: Group, column: str) -> float | None:
    """Read a numeric column of a setting, which all of its seeds share; None where it has none."""
    found = {row.get(column) for row in group.rows} - {None}
    # A derived value may read the seed: it is then no property of the setting.
    if len(found) != 1:
        return None
    value: Any = found.pop()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def families_over(found: Sequence[Group], column: str) -> list[list[Group]]:
    """Collect settings of which a column's value is known, in families that differ in it alone.

    A family may differ in every axis with an order that sets the column's value: bits of an image
    are set by its tokens and by the codebook, and one family holds settings with other numbers of
    both. Kinds, such as architectures, are families of their own.
    """
    known = [group for group in found if place(group, column) is not None]
    axes = [axis for axis in axes_of(known) if _ordered(axis.columns, known) is not None]
    setting = {c for axis in axes if _sets(axis, known, column) for c in axis.columns}
    return alike(known, setting)


def _sets(axis: Axis, known: Sequence[Group], column: str) -> bool:
    """Tell whether the axis, all else equal, changes the value by more than a by-product."""
    if column in axis.columns:
        return True
    for members in alike(known, axis.columns):
        places = [p for group in members if (p := place(group, column)) is not None]
        low, high = min(places), max(places)
        if high > low and (low <= 0 or high / low >= MOVES):
            return True
    return False


def _steps(columns: tuple[str, ...], found: Sequence[Group]) -> tuple[tuple[Values, Values], ...]:
    # The first setting of each value stands for it: only its place on the axis is asked for.
    members: dict[Values, Group] = {}
    for group in found:
        members.setdefault(values_of(group, columns), group)
    listed = list(members.values())
    ordered = _ordered(columns, listed)
    if ordered is None:
        ends = [(listed[0], other) for other in listed[1:]]
    else:
        ends = [(ordered[0], ordered[-1])] if len(ordered) > 1 else []
    return tuple((values_of(one, columns), values_of(two, columns)) for one, two in ends)


def _kinds(columns: tuple[str, ...], members: Sequence[Group]) -> bool:
    """Tell whether tokenizers differ in more than size, as those of several architectures do."""
    others = [column for column in columns if column != PARAM_TOKENIZER]
    return any(isinstance(group.identity[column], str) for column in others for group in members)


def _ordered(columns: tuple[str, ...], members: Sequence[Group]) -> list[Group] | None:
    """Order settings along an axis; None where its values have no order."""
    if PARAM_TOKENIZER in columns and not _kinds(columns, members):
        # By parameters, which the names of sizes do not order: S-L is larger than B-B.
        return sorted((g for g in members if g.size is not None), key=lambda g: g.size or 0.0)
    for column in columns:
        values = [group.identity[column] for group in members]
        # No value means off, as 0 does.
        if all(value is None or isinstance(value, int | float) for value in values):
            return sorted(members, key=lambda g: g.identity[column] or 0.0)
    return None
