"""Shapes of marks as paths, and the legend that shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from analysis.charts.grammar import HOLLOW, Series
from dashboards.plotting.base import Spec, rows, visible

_Points = Sequence[tuple[float, float]]
SHOWN = "shown"
"""Name of the selection that the legend makes: the series that are drawn."""
_LETTER, _BESIDE = 5.9, 52
"""Pixels of a letter of the legend, and of what stands beside a name."""
_LINE, _FREE, _USUAL = 18, 3, 1000
"""Pixels of a line of the legend; lines for which a chart has room; a page's usual width."""
_HOLE = 0.68
"""Part of a hollow shape that is empty, in the legend."""
_ARM = 0.36


def _turned(points: _Points, degrees: float) -> _Points:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


_TRIANGLE = [(0.0, -1.05), (1.0, 0.8), (-1.0, 0.8)]
_SQUARE = [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
_PLUS = [
    *((_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM), (_ARM, 1.0)),
    *((-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM), (-_ARM, -1.0)),
]
_STAR = [
    (radius * math.sin(math.pi * turn / 5), -radius * math.cos(math.pi * turn / 5))
    for turn, radius in enumerate((1.25, 0.52) * 5)
]
_CORNERS: dict[str, _Points] = {
    **{"s": _SQUARE, "D": _turned(_SQUARE, 45), "P": _PLUS, "x": _turned(_PLUS, 45)},
    **{"^": _TRIANGLE, "v": _turned(_TRIANGLE, 180), ">": _turned(_TRIANGLE, 90)},
    **{"<": _turned(_TRIANGLE, 270), "+": _PLUS, "*": _STAR},
}
"""Markers of `analysis.charts.style` that have corners; all others are circles."""


def path(marker: str, size: float = 1.0, *, inward: bool = False) -> str:
    """Write the outline of a marker, one pixel wide to each side at a `size` of 1.

    Args:
        marker: one of `analysis.charts.style`.
        size: factor of its width.
        inward: whether it runs the other way round, which makes it a hole in another outline.
    """
    if marker not in _CORNERS:
        turn = f"A{size:.3g},{size:.3g},0,1,{int(not inward)}"
        return f"M{-size:.3g},0{turn},{size:.3g},0{turn},{-size:.3g},0Z"
    points = _CORNERS[marker][:: -1 if inward else 1]
    return "M" + "L".join(f"{x * size:.3g},{y * size:.3g}" for x, y in points) + "Z"


def _handle(series: Series) -> str:
    """Write what stands for a series in the legend: its line, its mark, or both."""
    marked = bool(series.look.marker) and not series.banded
    # Marks are half as wide as their lines.
    mark = path(series.look.marker, 0.5) if marked else ""
    if marked and all(one.reading in HOLLOW for one in series.marks):
        mark += path(series.look.marker, 0.5 * _HOLE, inward=True)
    pieces = ((-1.2, -0.5), (-0.25, 0.25), (0.5, 1.2)) if series.dashed else ((-1.2, 1.2),)
    line = "".join(f"M{a},-.1L{b},-.1L{b},.1L{a},.1Z" for a, b in pieces)
    return mark + (line if series.joined or not marked else "")


def legend(series: Sequence[Series]) -> Spec:
    """Make a layer that draws nothing but a legend, in which a click hides or shows a series."""
    # By name: launches of one sweep that are compared may have series of one name.
    first = {one.name: one for one in reversed(series)}
    names = list(dict.fromkeys(one.name for one in series))
    look = _look(names)
    fill = {"domain": names, "range": [visible(first[name].look.colour) for name in names]}
    shape = {"domain": names, "range": [_handle(first[name]) for name in names]}
    field: Spec = {"field": "series", "type": "nominal"}
    return {
        "data": rows([]),
        "mark": {"type": "point", "filled": True},
        "params": [shown(names)],
        # Two channels of one field share a legend where its look is the same.
        "encoding": {
            # Its place is nowhere: without these the axes would look for it.
            "x": {"value": 0},
            "y": {"value": 0},
            "fill": {**field, "scale": fill, "legend": look},
            "shape": {**field, "scale": shape, "legend": look},
        },
    }


def room(series: Sequence[Series]) -> int:
    """Count the pixels by which a long legend makes a chart higher, on a page of usual width."""
    names = {one.name for one in series}
    columns = max(1, int(_USUAL // _width(names))) if names else 1
    return _LINE * max(0, -(-len(names) // columns) - _FREE)


def _width(names: Iterable[str]) -> float:
    return max(map(len, names)) * _LETTER + _BESIDE


def shown(names: Sequence[str]) -> Spec:
    """Make the selection of the series that are drawn; at first all of them."""
    # Without `clear` a double click in the chart, which ends zooming, would show all of them.
    select = {"type": "point", "fields": ["series"], "toggle": "true", "clear": False}
    value = [{"series": name} for name in names]
    return {"name": SHOWN, "select": select, "bind": "legend", "value": value}


def _look(names: Sequence[str]) -> Spec:
    return {
        "orient": "top",
        "title": None,
        "symbolSize": 400,
        "labelLimit": {"expr": f"max(width - {_BESIDE}, 80)"},
        # As many columns as the page has room for.
        "columns": {"expr": f"max(1, floor(width / {_width(names):.0f}))"},
    }


IF_SHOWN: Spec = {"filter": {"param": SHOWN}}
"""Leaves out the rows of series that the legend hides."""
