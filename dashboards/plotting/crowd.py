"""Marks of charts with hundreds or thousands of them, made as cheap as they can be."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.charts.grammar import HOLLOW, Chart, Mark, Origin, Series
from dashboards.plotting.base import Spec, rows, said, visible
from dashboards.plotting.symbols import path

CROWD = 2000
"""Marks above which those that would cover each other are drawn as one."""
_CELLS = (160, 65)
"""Cells across and up of which each has one mark of a series: some 7 pixels wide on a desktop."""


def many_marks(shown: Sequence[Series], chart: Chart, axes: Spec) -> list[Spec]:
    """Draw very many marks, small and alike but for their colour; a layer for each series.

    What Vega asks of each mark takes most of its time, so it asks for no more than the place: the
    tooltip is the row itself, whose fields are called as its lines are. Rows as one text of CSV
    are no faster, as every number of it has to be parsed.
    """
    names = [said(chart.x), said(chart.y)]
    encoding = {
        # Dots and brackets in a field's name would be a path into it.
        one: {**axes[one], "field": re.sub(r"([.\[\]\\'])", r"\\\1", name)}
        for one, name in zip("xy", names, strict=True)
    }
    return [
        {
            "data": rows(_crowd(series, chart, *names)),
            "mark": {
                "type": "point",
                "opacity": 1,
                **_look(series),
                "size": 34,
                "clip": True,
                "tooltip": {"content": "data"},
            },
            "encoding": encoding,
        }
        for series in shown
    ]


def _crowd(series: Series, chart: Chart, across: str, up: str) -> list[Spec]:
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
            "trial": _title(mark, series, int(count) - 1),
            # Digits that a tooltip has room for.
            across: float(f"{mark.x:.5g}"),
            up: float(f"{mark.y:.5g}"),
            "run": run_of(mark.origins[:1]),
        }
        for mark, count in zip(marks, counts, strict=True)
    ]


def _look(series: Series) -> Spec:
    """Choose colour and shape of a series' marks; those that are less reliable are hollow."""
    colour = visible(series.look.colour)
    hollow = all(mark.reading in HOLLOW for mark in series.marks)
    fill = (
        {"fill": "transparent", "stroke": colour} if hollow else {"filled": True, "fill": colour}
    )
    # Vega draws its own circle faster than one that is given as a path.
    return {**fill, "shape": "circle" if series.look.marker == "o" else path(series.look.marker)}


def _title(mark: Mark, series: Series, under: int) -> str:
    name = str(mark.origins[0].get("trial", "")) if mark.origins else ""
    name = name or mark.label or series.name
    return f"{name} and {under:,} under it" if under else name


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
