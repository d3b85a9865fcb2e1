"""Series that follow from the marks of a chart: Pareto fronts and fitted laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.charts.grammar import Mark, Series
from analysis.charts.style import FRONT, VERMILION, Look
from analysis.statistics.fits import LawFit
from analysis.statistics.laws import FORMULAS, Floats
from analysis.statistics.pareto import undominated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRONT_NAME = "Pareto front"
_CURVE = "#444444"
# Smooth at the width of a page, and small where it is sent to a browser.
_CURVE_POINTS = 60


def pareto_front(
    lines: Sequence[Series],
    better_x: str | None,
    better_y: str | None,
    name: str = FRONT_NAME,
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


def law_curve(fit: LawFit, name: str, look: Look) -> Series:
    """Make the dashed line of a fitted law, no further than was measured."""
    marks = [Mark(float(x), float(y), (), "fit") for x, y in zip(*_along(fit), strict=True)]
    return Series(name, tuple(marks), look._replace(marker=""), dashed=True)


def plot_fit(
    axes: Axes, fit: LawFit, sizes: Sequence[float], values: Sequence[float], label: str = ""
) -> Axes:
    """Draw what was fitted, and how well the largest size was predicted from the others.

    Args:
        axes: the axes to draw into.
        fit: what `fit_power_law(sizes, values)` returned; the curve ends at the measured sizes.
        sizes: one per observation.
        values: the observations.
        label: name of the curve in the legend; by default its formula and exponent.
    """
    b = fit.parameters["b"]
    text = label or f"{FORMULAS[fit.law]}, b = {b.value:.3g} [{b.low:.3g}, {b.high:.3g}]"
    axes.plot(sizes, values, "o", color=_CURVE, markerfacecolor="white", markersize=4, zorder=3)
    axes.plot(*_along(fit), color=_CURVE, label=text)
    if fit.held_out is not None:
        predicted = fit.held_out.predicted
        # Matplotlib takes lengths below and above, not ends; the interval of a power law is
        # symmetric in logarithms only.
        ends = [[predicted.value - predicted.low], [predicted.high - predicted.value]]
        words = f"predicted from smaller sizes, off by {fit.held_out.relative_error:+.1%}"
        at = fit.held_out.size, predicted.value
        axes.errorbar(*at, ends, fmt="D", color=VERMILION, markersize=5, capsize=3, label=words)
    axes.set_xscale("log")
    # A power law is a straight line on two logarithmic axes; a saturating one may reach below 0.
    if fit.law == "power":
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=7)
    return axes


def _along(fit: LawFit) -> tuple[Floats, Floats]:
    """List points of the curve, evenly spaced on a logarithmic axis."""
    sizes = np.geomspace(fit.sizes[0], fit.sizes[-1], _CURVE_POINTS)
    return sizes, fit.predict(sizes)
