"""Which of several results no other beats in two respects at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from analysis.charts.grammar import Series
from analysis.charts.style import OTHER

NAME = "Pareto front"


def undominated(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Which pairs no other has as low in both and lower in one; equal pairs are all kept.

    Args:
        costs: finite, less is better in both.
    """
    kept = [False] * len(costs)
    last = (math.inf, math.inf)
    for i in sorted(range(len(costs)), key=costs.__getitem__):
        if costs[i][1] < last[1] or costs[i] == last:
            kept[i], last = True, costs[i]
    return kept


def pareto_front(lines: Sequence[Series], better_x: str | None, better_y: str | None) -> Series:
    """The marks of all series that no other beats, by x, as a dashed line.

    Args:
        lines: what is compared; all measured in one way.
        better_x: `higher`, or anything else for less is better: sizes and rates are costs.
        better_y: likewise.
    """
    side, up = (-1 if better == "higher" else 1 for better in (better_x, better_y))
    marks = [mark for line in lines for mark in line.marks]
    best = undominated([(side * mark.x, up * mark.y) for mark in marks])
    front = (
        replace(m, label="", low=None, high=None)
        for m, is_best in zip(marks, best, strict=True)
        if is_best
    )
    return Series(NAME, tuple(sorted(front, key=lambda m: m.x)), OTHER, marker="", dashed=True)
