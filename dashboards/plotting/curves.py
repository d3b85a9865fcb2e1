"""Curves over training steps: of several settings in one chart, or one small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from analysis.charts.grammar import Chart, Mark, Series
from dashboards.plotting.axes import channel, log_ticks, marked, plain
from dashboards.plotting.base import GREY, SERIES, Spec, framed, of, rows, said
from dashboards.plotting.charts import ZOOMING, bands, finite, look
from dashboards.plotting.symbols import IF_SHOWN, legend, room

MOST_PLACES = 200
"""Places along x at which hovering tells the values: a screen shows no more apart."""


def overlay_figure(chart: Chart, *, log_x: bool, log_y: bool) -> Spec:
    """Draw curves over steps with a band for the interval of each; it can be looked at closely."""
    drawn = [s for s in _on_axes(chart.series, log_x=log_x, log_y=log_y) if s.marks]
    layers = [bands(drawn), _lines(drawn) | {"params": [ZOOMING]}, _places(drawn, chart)]
    if len(drawn) > 1:
        layers = [legend(drawn), *(layer | {"transform": [IF_SHOWN]} for layer in layers[:2])]
        layers.append(_places(drawn, chart))
    axes = _axes(drawn, chart.x_label, chart.y_label, log_x=log_x, log_y=log_y)
    return framed({"encoding": axes, "layer": layers}, 520 + room(drawn))


def curve_figure(chart: Chart, title: str) -> Spec:
    """Draw one training curve, small."""
    # What has no end would make any axis logarithmic.
    log_x, log_y = finite(chart).log_x, finite(chart).log_y
    drawn = _on_axes(chart.series, log_x=log_x, log_y=log_y)
    # Its title says what y is.
    axes = _axes(drawn, chart.x_label, None, log_x=log_x, log_y=log_y)
    content = {
        "title": title.replace("_", " "),
        "encoding": axes,
        "layer": [_lines(drawn), _places(drawn, chart)],
    }
    return framed(content, 220)


def _axes(drawn: Sequence[Series], x: str, y: str | None, *, log_x: bool, log_y: bool) -> Spec:
    ys = [mark.y for series in drawn for mark in series.marks if math.isfinite(mark.y)]
    ticks = log_ticks(ys) if log_y and ys else []
    up = channel("y", y, log=log_y)
    return {"x": channel("x", x, log=log_x), "y": marked(up, ticks, plain(ticks))}


def _on_axes(every: Sequence[Series], *, log_x: bool, log_y: bool) -> list[Series]:
    """Leave out the points that have no place on a logarithmic axis, such as step 0."""
    return [
        replace(
            series,
            marks=tuple(m for m in series.marks if _has_place(m, log_x=log_x, log_y=log_y)),
        )
        for series in every
    ]


def _has_place(mark: Mark, *, log_x: bool, log_y: bool) -> bool:
    low = mark.y if mark.y_bar is None else min(mark.y, mark.y_bar.low)
    # What is no number stays, as a gap.
    return (not log_x or mark.x > 0) and not (log_y and low <= 0)


def _lines(drawn: Sequence[Series]) -> Spec:
    found = [
        # A loss that diverged is a gap; JSON has no other word for it.
        {
            **look(series, number),
            "d": [5, 4] if series.dashed else [1, 0],
            "x": mark.x,
            "y": mark.y if math.isfinite(mark.y) else None,
        }
        for number, series in enumerate(drawn)
        for mark in series.marks
    ]
    return {
        "data": rows(found),
        "mark": {
            "type": "line",
            "strokeWidth": 2,
            "clip": True,
            "stroke": of("c"),
            "strokeDash": of("d"),
        },
        "encoding": {"detail": SERIES},
    }


def _places(drawn: Sequence[Series], chart: Chart) -> Spec:
    """Lay a strip over each step, whose tooltip tells the values of all curves there."""
    values: dict[float, Spec] = {}
    for series in drawn:
        for mark in series.marks:
            bar = mark.y_bar
            interval = f" [{bar.low:.5g} to {bar.high:.5g}]" if bar else ""
            values.setdefault(mark.x, {})[series.name] = f"{mark.y:.5g}{interval}"
    at = sorted(values)[:: -(-len(values) // MOST_PLACES) or 1]
    # From the middle to the step before to that to the next.
    ends = [*at[:1], *((a + b) / 2 for a, b in pairwise(at)), *at[-1:]]
    found = [
        {"x": low, "x2": high, "said": {"title": f"{said(chart.x)} {x:g}", **values[x]}}
        for x, (low, high) in zip(at, pairwise(ends), strict=True)
    ]
    hovered = {
        "name": "hovered",
        "select": {"type": "point", "on": "pointerover", "clear": "pointerout"},
    }
    opacity = {"condition": {"param": "hovered", "empty": False, "value": 0.12}, "value": 0}
    return {
        "data": rows(found),
        "mark": {"type": "rect", "fill": GREY, "clip": True, "tooltip": of("said")},
        "params": [hovered],
        "encoding": {
            "y": {"value": 0},
            "y2": {"value": "height"},
            "x2": {"field": "x2"},
            "fillOpacity": opacity,
        },
    }
