"""Axes of charts: scale, direction, and ticks where one looks for them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from analysis.charts.grammar import Chart, ChartAxis
from dashboards.plotting.base import Spec

PADDING = 18
"""Pixels between the outermost marks and the frame."""
_TICKS = {"x": "ceil(width / 90)", "y": "ceil(height / 55)"}


def axes_of(chart: Chart) -> Spec:
    """Describe both axes of a chart, for the fields `x` and `y`."""
    ys = [mark.y for mark in chart.marks]
    ticks = chart.y.powers(ys) or log_ticks(ys) if chart.log_y else []
    up = channel("y", chart.y_label, log=chart.log_y, turned=chart.turns(chart.y))
    across = channel("x", chart.x_label, log=chart.log_x, turned=chart.turns(chart.x))
    return {"x": marked(across, *_ticks_across(chart)), "y": marked(up, ticks, plain(ticks))}


def channel(field: str, title: str | None, *, log: bool, turned: bool = False) -> Spec:
    """Describe an axis of numbers that ends a bit beyond its marks."""
    kind = {"type": "log"} if log else {"zero": False}
    scale = {**kind, "nice": False, "padding": PADDING, "reverse": turned}
    # Vega's own number of ticks, one in 40 pixels, makes a fence of their texts.
    axis = {"tickCount": {"expr": _TICKS[field]}}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def marked(axis: Spec, ticks: Sequence[float], texts: Sequence[str]) -> Spec:
    """Give an axis ticks of its own; none: it keeps those that Vega chooses."""
    if not ticks:
        return axis
    at, names = json.dumps(list(ticks)), json.dumps(list(texts))
    # One who looks closely leaves ticks outside of the frame: Vega would draw their grid there.
    outside = {"test": f"!inrange(datum.value, domain('{axis['field']}'))", "value": 0}
    return axis | {
        "axis": {
            "values": list(ticks),
            "labelExpr": f"{names}[indexof({at}, datum.value)]",
            "labelBound": 12,
            # Settings are not evenly spaced: only what touches the one before is left out.
            "labelOverlap": "greedy",
            "gridOpacity": {"condition": outside, "value": 1},
        }
    }


def _ticks_across(chart: Chart) -> tuple[Sequence[float], Sequence[str]]:
    """Choose the ticks of x: its own, model sizes, values of a setting, or whole numbers."""
    if ticks := chart.x.ticks or chart.size_ticks:
        at, names = zip(*ticks, strict=True)
        return at, names
    values = [mark.x for mark in chart.marks]
    own = _own_ticks(chart.x, values, log=chart.log_x)
    return own, plain(own)


def _own_ticks(axis: ChartAxis, values: Sequence[float], *, log: bool) -> list[float]:
    return (axis.powers(values) or log_ticks(values)) if log else axis.settings(values)


def plain(ticks: Sequence[float]) -> list[str]:
    """Print ticks without exponents where that is short."""
    return [f"{tick:.7g}" for tick in ticks]


def log_ticks(values: Sequence[float]) -> list[float]:
    """Choose whole numbers within positive values: powers of ten, where those are few 2 and 5 too.

    Returns:
        Nothing where too few are between the values: there Vega's own are evenly spaced.
    """
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside
    return [low] if low == high else []
