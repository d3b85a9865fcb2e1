"""A fitted law as a picture: the seeds, the curve, and the held-out size as it was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.statistics.fits import FORMULAS, LawFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVE, _HELD_OUT = "#444444", "#D55E00"
_POINTS = 200


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
    # Evenly spaced on the logarithmic axis, and no further than was measured.
    along = np.geomspace(fit.sizes[0], fit.sizes[-1], _POINTS)
    axes.plot(along, fit.predict(along), color=_CURVE, label=text)
    held = fit.held_out
    if held is not None:
        predicted = held.predicted
        axes.errorbar(
            held.size,
            predicted.value,
            # Matplotlib takes lengths below and above, not ends; the interval of a power law is
            # symmetric in logarithms only.
            yerr=[[predicted.value - predicted.low], [predicted.high - predicted.value]],
            color=_HELD_OUT,
            marker="D",
            markersize=5,
            capsize=3,
            linestyle="",
            label=f"predicted from smaller sizes, off by {held.relative_error:+.1%}",
        )
    axes.set_xscale("log")
    # A power law is a straight line on two logarithmic axes; a saturating one may reach below 0.
    if fit.law == "power":
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=7)
    return axes
