"""Marks of charts with hundreds or thousands of them, made as cheap as they can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.charts.grammar import Chart, Origin, Series
from dashboards.plotting.base import Spec, of, rows, said, visible

CROWD = 2000
"""Marks above which those that would cover each other are drawn as one."""
_CELLS = (220, 90)
"""Cells across and up of which each has one mark of a series: some 5 pixels wide on a desktop."""


def many_marks(shown: Sequence[Series], chart: Chart) -> Spec:
    """Draw very many marks: small, all alike but for their colour, none where one covers it."""
    found = [row for series in shown for row in _crowd(series, chart)]
    words = [
        f"{_quoted(said(axis))}: format(datum.{at}, '.5~g')"
        for axis, at in ((chart.x, "x"), (chart.y, "y"))
    ]
    title = "datum.t + (datum.n ? ' and ' + datum.n + ' under it' : '')"
    return {
        "data": rows(found),
        "mark": {
            "type": "point",
            "filled": True,
            "fill": of("c"),
            "opacity": 1,
            "size": 34,
            "clip": True,
            "tooltip": {"expr": f"{{title: {title}, series: datum.series, {', '.join(words)}}}"},
        },
    }


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _crowd(series: Series, chart: Chart) -> list[Spec]:
    """Make a row for each mark that is seen, with the number of those that it covers."""
    marks = series.marks
    counts = np.ones(len(marks), dtype=int)
    if len(chart.marks) > CROWD:
        cells = _cells(series, chart)
        _, first, counts = np.unique(cells, return_index=True, return_counts=True)
        marks = tuple(marks[place] for place in first)
    return [
        {
            "series": series.name,
            "x": mark.x,
            "y": mark.y,
            "c": visible(series.look.colour),
            "t": str(mark.origins[0].get("trial", "")) if mark.origins else series.name,
            "run": run_of(mark.origins[:1]),
            "n": int(count) - 1,
        }
        for mark, count in zip(marks, counts, strict=True)
    ]


def _cells(series: Series, chart: Chart) -> NDArray[np.int64]:
    """Number the cell of the chart in which each mark of a series stands."""
    across = _parts([m.x for m in series.marks], [m.x for m in chart.marks], log=chart.log_x)
    up = _parts([m.y for m in series.marks], [m.y for m in chart.marks], log=chart.log_y)
    columns, lines = (
        (part * count).astype(np.int64) for part, count in zip((across, up), _CELLS, strict=True)
    )
    found: NDArray[np.int64] = columns * (_CELLS[1] + 1) + lines
    return found


def _parts(own: Sequence[float], every: Sequence[float], *, log: bool) -> NDArray[np.float64]:
    """Find how far along an axis values stand, from 0 to 1."""
    places, ends = np.array(own), np.array([min(every), max(every)])
    if log:
        places, ends = np.log(places), np.log(ends)
    found: NDArray[np.float64] = (places - ends[0]) / ((ends[1] - ends[0]) or 1.0)
    return found


def run_of(origins: Sequence[Origin]) -> str | None:
    """Name the run that a mark leads to; fits, fronts and the paper's marks lead to none."""
    return str(origins[0]["run_id"]) if origins and origins[0].get("run_id") else None
