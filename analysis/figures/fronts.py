"""Pareto fronts as series of a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from analysis.charts.grammar import Mark, Series
from analysis.charts.style import FRONT, Look
from analysis.statistics.pareto import undominated

NAME = "Pareto front"


def pareto_front(
    lines: Sequence[Series],
    better_x: str | None,
    better_y: str | None,
    name: str = NAME,
    look: Look = FRONT,
) -> Series:
    """Join the marks of all series that no other beats, by x, as a dashed line.

    Args:
        lines: the series to compare; all measured in one way.
        better_x: `higher`, or anything else for less is better: sizes and rates are costs.
        better_y: likewise.
        name: name of the front in the legend.
        look: colour of the front.
    """
    # `undominated` compares costs: what should be high is turned around.
    side, up = (-1 if better == "higher" else 1 for better in (better_x, better_y))
    marks = [mark for line in lines for mark in line.marks]
    best = undominated([(side * mark.x, up * mark.y) for mark in marks])
    front = [_bare(mark) for mark, is_best in zip(marks, best, strict=True) if is_best]
    return Series(name, tuple(sorted(front, key=lambda m: m.x)), look, dashed=True)


def _bare(mark: Mark) -> Mark:
    # Without label and intervals, which the mark itself has at the same place. `front` keeps it
    # out of the data files, where it would be a second measurement.
    return replace(mark, reading="front", label="", x_bar=None, y_bar=None, seeds=())
