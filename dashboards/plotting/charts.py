"""A chart of the grammar: lines, intervals, marks that say what they are, and names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.charts.grammar import HOLLOW, Bar, Chart, Mark, Series, sideways
from dashboards.plotting.axes import axes_of
from dashboards.plotting.base import INK, SERIES, Spec, framed, of, rows, said, visible
from dashboards.plotting.crowd import many_marks, run_of
from dashboards.plotting.symbols import IF_SHOWN, legend, path, room

MANY = 400
"""Marks above which they are drawn on a canvas, without names beside them."""
FEW_NAMES = 40
_POINT = 0.003
"""Part of the axis that a point of print is, for intervals that stand beside each other."""
PICK, ZOOM = "pick", "zoom"
"""Names of selections: the mark that was clicked, by its run; what is looked at closely."""
_PICK: Spec = {
    "name": PICK,
    "select": {"type": "point", "fields": ["run"], "toggle": False},
}
ZOOMING: Spec = {
    "name": ZOOM,
    # With Ctrl alone, and no finger: a wheel or a finger that moved the chart at once would keep
    # the page from scrolling.
    "select": {
        "type": "interval",
        "zoom": "wheel![event.ctrlKey || event.metaKey]",
        "translate": "[pointerdown[event.pointerType != 'touch'], window:pointerup]"
        " > window:pointermove!",
    },
    "bind": "scales",
}
Places = Mapping[int, float]


def chart_figure(
    chart: Chart, height: int = 520, *, picks: bool = False, zooms: bool = False
) -> Spec:
    """Draw a chart; hovering shows the trial.

    Args:
        chart: what is drawn.
        height: in pixels.
        picks: whether a click selects the run of a mark, as `PICK`.
        zooms: whether it can be looked at closely, as `ZOOM`.
    """
    chart = finite(chart)
    drawn = [series for series in chart.series if series.marks]
    many, places, axes = len(chart.marks) > MANY, _places(chart), axes_of(chart)
    shown = [series for series in drawn if series.look.marker]
    marks = many_marks(shown, chart, axes) if many else [_marks(shown, chart, places)]
    # Selections are of the whole chart, but must stand in one of its layers.
    marks[:1] = [one | _params(picks, zooms) for one in marks[:1]]
    layers = [bands(drawn), *_bars(drawn, places), _lines(drawn, places), *marks]
    layers += [_names(drawn, chart, places)]
    filled = [layer for layer in layers if layer["data"]["values"] or "params" in layer]
    if len(drawn) > 1:
        filled = [legend(drawn), *(layer | {"transform": [IF_SHOWN]} for layer in filled)]
    return framed({"encoding": axes, "layer": filled}, height + room(drawn), many=many)


def finite(chart: Chart) -> Chart:
    """Leave out marks without a place: JSON has no word for what is not a number."""
    marks = [
        [m for m in s.marks if math.isfinite(m.x) and math.isfinite(m.y)] for s in chart.series
    ]
    pairs = zip(chart.series, marks, strict=True)
    return replace(chart, series=tuple(replace(s, marks=tuple(own)) for s, own in pairs))


def _params(picks: bool, zooms: bool) -> Spec:
    found = [_PICK] * picks + [ZOOMING] * zooms
    return {"params": found} if found else {}


def _places(chart: Chart) -> Places:
    """Find the x of each mark by its identity: intervals that would cover each other stand apart.

    Hovering says the true values.
    """
    marks = chart.marks
    if len(marks) > MANY or not marks:
        return {}
    low, high = min(mark.x for mark in marks), max(mark.x for mark in marks)
    moves = [
        0.0 if series.banded else _POINT * shift
        for series, shifts in zip(chart.series, sideways(chart), strict=True)
        for shift in shifts
    ]
    # Part of the axis: on a logarithmic one a factor.
    return {
        id(mark): mark.x * (high / low) ** move if chart.log_x else mark.x + move * (high - low)
        for mark, move in zip(marks, moves, strict=True)
    }


def look(series: Series, number: int) -> Spec:
    """Begin the row of a line: the series that it belongs to, and its colour."""
    return {"series": series.name, "s": number, "c": visible(series.look.colour)}


def bands(drawn: Sequence[Series]) -> Spec:
    """Make a layer of the intervals of curves as pale areas."""
    found = [
        {**look(series, number), "x": m.x, "y": bar.low, "y2": bar.high}
        for number, series in enumerate(drawn)
        if series.banded
        for m in series.marks
        for bar in [m.y_bar or Bar(m.y, m.y, "none")]
    ]
    return {
        "data": rows(found),
        "mark": {"type": "area", "fillOpacity": 0.18, "clip": True, "fill": of("c")},
        "encoding": {"y2": {"field": "y2"}, "detail": SERIES},
    }


def _bars(drawn: Sequence[Series], places: Places) -> list[Spec]:
    """Draw intervals of single marks, with a short stroke at either end."""
    found: list[Spec] = []
    for number, series in enumerate(drawn):
        own = look(series, number)
        for mark in series.marks:
            x, y = places.get(id(mark), mark.x), mark.y
            if bar := mark.x_bar:
                ends = {"x": bar.low, "x2": bar.high, "y": y, "y2": y}
                found.append({**own, **ends, "p": _UPRIGHT})
            if (bar := mark.y_bar) and not series.banded:
                ends = {"x": x, "x2": x, "y": bar.low, "y2": bar.high}
                found.append({**own, **ends, "p": _LEVEL})
    # An interval without an end is told by its mark alone.
    found = [row for row in found if all(math.isfinite(row[at]) for at in ("x", "x2", "y", "y2"))]
    caps = [row | {"x": row[f"x{end}"], "y": row[f"y{end}"]} for row in found for end in ("", "2")]
    line = {"strokeWidth": 1.2, "clip": True, "stroke": of("c")}
    return [
        {
            "data": rows(found),
            "mark": {"type": "rule", **line},
            "encoding": {"x2": {"field": "x2"}, "y2": {"field": "y2"}},
        },
        {"data": rows(caps), "mark": {"type": "point", "shape": of("p"), "size": 64, **line}},
    ]


_LEVEL, _UPRIGHT = "M-1,0H1", "M0,-1V1"
"""Shapes of the ends of intervals of y and of x."""


def _lines(drawn: Sequence[Series], places: Places) -> Spec:
    """Join the marks of series in their order."""
    found = [
        {
            **look(series, number),
            "d": [5, 4] if series.dashed else [1, 0],
            "x": places.get(id(mark), mark.x),
            "y": mark.y,
        }
        for number, series in enumerate(drawn)
        if series.joined
        for mark in series.marks
    ]
    return {
        "data": rows(found),
        # In the order of the rows: Vega-Lite would join from left to right.
        # A curve says its name; its marks say their values.
        "mark": {
            "type": "line",
            "order": False,
            "strokeWidth": 2,
            "clip": True,
            "tooltip": of("series"),
            "stroke": of("c"),
            "strokeDash": of("d"),
        },
        "encoding": {"detail": SERIES},
    }


def _marks(shown: Sequence[Series], chart: Chart, places: Places) -> Spec:
    """Draw every mark, above those of the trials that it is the mean of."""
    found = [row for series in shown for row in _seeds(series, chart, places)]
    found += [
        _mark_row(mark, series, chart, places.get(id(mark), mark.x))
        for series in shown
        for mark in series.marks
    ]
    return {
        "data": rows(found),
        "mark": {
            "type": "point",
            "opacity": 1,
            "strokeWidth": 1.2,
            "clip": True,
            "tooltip": of("said"),
            "fill": of("f"),
            "stroke": of("c"),
            "shape": of("p"),
            "size": of("z"),
        },
    }


def _mark_row(mark: Mark, series: Series, chart: Chart, x: float) -> Spec:
    colour, is_run = visible(series.look.colour), mark.reading == "run"
    return {
        "series": series.name,
        "x": x,
        "y": mark.y,
        # Empty inside, yet a click inside meets it.
        "f": "transparent" if mark.reading in HOLLOW else colour,
        # Runs have a black rim, as on paper.
        "c": INK if is_run else colour,
        "p": path(series.look.marker),
        "z": 100,
        "run": run_of(mark.origins[:1]),
        "said": _said(mark, series, chart),
    }


def _seeds(series: Series, chart: Chart, places: Places) -> list[Spec]:
    """Make the trials behind the means of a series, small and open."""
    return [
        {
            "series": series.name,
            # A seed has its own x where x is a result; it moves with its mean.
            "x": x + places.get(id(mark), mark.x) - mark.x,
            "y": y,
            "f": "transparent",
            "c": visible(series.look.colour),
            "p": path("o"),
            "z": 30,
            "run": run_of((origin,)),
            "said": {
                "title": f"trial {origin.get('trial', '')}",
                said(chart.x): f"{x:.5g}",
                said(chart.y): f"{y:.5g}",
            },
        }
        for mark in series.marks
        if len(mark.seeds) > 1 and not series.banded
        for origin, (x, y) in zip(mark.origins, mark.seeds, strict=False)
    ]


def _names(drawn: Sequence[Series], chart: Chart, places: Places) -> Spec:
    """Write names beside marks, where they are few."""
    few = 0 < len(chart.marks) <= FEW_NAMES
    naming = {id(same[0]) for same in chart.namesakes} if few else set()
    found = [
        {
            "series": series.name,
            "x": places.get(id(mark), mark.x),
            "y": mark.y,
            "text": mark.label,
            **_beside(place, series, chart),
        }
        for series in drawn
        for place, mark in enumerate(series.marks)
        # Published marks lie close together: hovering names them.
        if id(mark) in naming and mark.reading == "run"
    ]
    corner = {name: of(name) for name in ("align", "baseline", "dx", "dy")}
    return {
        "data": rows(found),
        "mark": {"type": "text", "fontSize": 12, "color": INK, "clip": True, **corner},
        "encoding": {"text": {"field": "text"}},
    }


def _beside(place: int, series: Series, chart: Chart) -> Spec:
    """Choose the corner of a mark for its name: inside the frame, off the line that leaves there.

    Above the interval of x, which would strike the name through; inside at the right edge.
    """
    marks = series.marks
    # In the directions of the page: an axis may run backwards.
    across, up = (-1 if chart.turns(axis) else 1 for axis in (chart.x, chart.y))
    mark, last = marks[place], max(across * other.x for other in chart.marks)
    side = 1 if across * mark.x < last else -1
    near = [*marks[max(place - 1, 0) : place], *marks[place + 1 : place + 2]]
    rises = [
        up * (other.y - mark.y)
        for other in near
        if series.joined and side * across * (other.x - mark.x) > 0
    ]
    # Below the mark where a line leaves upwards on that side.
    below = bool(rises) and max(rises) > 0
    return {
        "align": "left" if side > 0 else "right",
        "baseline": "top" if below else "bottom",
        "dx": 7 * side,
        "dy": 5 if below else -4,
    }


def _said(mark: Mark, series: Series, chart: Chart) -> Spec:
    """Say what a mark is: its trials, its values with their intervals, where it was published."""
    found: Spec = {"title": mark.label or series.name}
    if mark.label:
        found["series"] = series.name
    trials = [str(o["trial"]) for o in mark.origins if "trial" in o]
    if trials:
        found["trial"] = ", ".join(trials[:4]) + (" …" if len(trials) > 4 else "")
    for axis, value, bar in ((chart.x, mark.x, mark.x_bar), (chart.y, mark.y, mark.y_bar)):
        interval = f" [{bar.low:.5g} to {bar.high:.5g}]" if bar else ""
        found[said(axis)] = f"{value:.5g}{interval}"
    cited = [f"{o['citation']}, {o['place']}" for o in mark.origins if "citation" in o]
    if cited:
        found[mark.reading] = cited[-1]
    return found
