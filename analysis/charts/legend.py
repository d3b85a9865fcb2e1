"""The legend of a figure: a handle for each series, in as many columns as fit."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from analysis.charts import style
from analysis.charts.grammar import HOLLOW, Chart, Series, without_way
from analysis.charts.style import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.transforms import BboxBase

AGREEMENT: Mapping[str, Any] = {
    "color": "#999999",
    "linestyle": ":",
    "linewidth": 1.0,
    "zorder": 1,
}
"""Line on which both axes are equal."""
_RIM = "#000000"
_MOST_HANDLES = 20
"""Series up to which the legend has each; of more it has some, spread evenly."""
_FLAT: Mapping[str, Any] = {
    "frameon": False,
    "borderaxespad": 0,
    "borderpad": 0,
    "columnspacing": 1.4,
    "handletextpad": 0.6,
}
_MARGIN = 0.01
"""Left and right of the legend, in widths of the page."""
_FEWEST_LETTERS = 12
"""Letters of a line of a name that is broken."""
_BELOW = 0.06
"""Inches between the legend and the charts."""


def face(colour: str, reading: str, marker: str) -> dict[str, Any]:
    """Choose fill and rim of a mark: hollow if read off a picture, black-rimmed if from a run."""
    is_cross = marker in "x+|"  # these are strokes: a rim would be all of them
    return {
        "color": colour,
        "markerfacecolor": "white" if reading in HOLLOW else colour,
        "markeredgecolor": _RIM if reading == "run" and not is_cross else colour,
        "markeredgewidth": 0.7 if reading == "run" and not is_cross else 1.0,
    }


def handles(charts: Sequence[Chart]) -> list[Line2D]:
    """Make a handle for each series by name; none where there is one series only.

    Fronts of several series share a handle, and fits likewise: their colours are those of the
    series. Of very many series some have one, from the first to the last.
    """
    shown = _named(charts)
    measured = [series for series in shown if not series.is_derived]
    derived = [series for series in shown if series.is_derived]
    made = [_handle(series, series.name) for series in _spread(measured)]
    if (more := len(measured) - len(made)) > 0:
        made.append(Line2D([], [], linestyle="", label=f"… {more} between them"))
    for words in ("front", "fit"):
        mine = [series for series in derived if series.marks[0].reading == words]
        made += [_handle(mine[0], mine[0].name)] if len(mine) == 1 else []
        if len(mine) > 1:
            grey = replace(mine[0], look=Look(style.GREY, ""))
            made.append(_handle(grey, f"{words}, in the colour of the marks"))
    if any(chart.is_agreement for chart in charts):
        made.append(Line2D([], [], **AGREEMENT, label="y = x"))
    return made if len(made) > 1 else []


def _named(charts: Sequence[Chart]) -> list[Series]:
    """List the series of all charts, each once by name."""
    # Series of one name share a handle: looks agree over all charts of a figure.
    shown: dict[str, Series] = {}
    for series in (series for chart in charts for series in chart.series):
        shown.setdefault(series.name, series)
    # `X [a]` stands for `X` as well, where some charts show what was measured in one way only.
    marked = {
        (without_way(name), s.look) for name, s in shown.items() if name != without_way(name)
    }
    return [s for name, s in shown.items() if (name, s.look) not in marked]


def _spread(found: list[Series]) -> list[Series]:
    """Keep all of few series, and of many the first, the last and some between."""
    if len(found) <= _MOST_HANDLES:
        return found
    places = np.linspace(0, len(found) - 1, _MOST_HANDLES // 2)
    return [found[round(place)] for place in places]


def _handle(series: Series, name: str) -> Line2D:
    # The first mark stands for all: readings mix within a series only where a copy is cited.
    reading = series.marks[0].reading if series.marks else "printed"
    colour, marker = series.look
    looks = face(colour, reading, marker)
    looks["linestyle"] = ("--" if series.dashed else "-") if series.joined else ""
    return Line2D([], [], marker=marker, markersize=4.5, label=name, **looks)


def fitting(made: Sequence[Line2D], inches: float) -> tuple[int, float]:
    """Find how many columns of handles fit into a width, and the inches that they then take."""
    if not made:
        return 1, 0.0
    # A figure of its own: a legend is measured only once it has one, and may need several tries.
    figure = Figure(figsize=(inches, 1))
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    room = (1 - 2 * _MARGIN) * figure.bbox.width
    for columns in range(len(made), 0, -1):
        box = _measured(figure, renderer, made, columns)
        if box.width <= room:
            break
    names = [str(handle.get_label()) for handle in made]
    letters = max(map(len, names))
    # A single name may be wider than a column of print.
    while box.width > room and letters > _FEWEST_LETTERS:
        letters -= 2
        for handle, name in zip(made, names, strict=True):
            handle.set_label("\n".join(textwrap.wrap(name, letters)))
        box = _measured(figure, renderer, made, 1)
    return columns, float(box.height / figure.dpi) + _BELOW


def _measured(
    figure: Figure, renderer: RendererBase, made: Sequence[Line2D], columns: int
) -> BboxBase:
    """Measure the legend with so many columns, in pixels."""
    drawn = figure.legend(handles=list(made), ncols=columns, **_FLAT)
    box = drawn.get_window_extent(renderer)
    drawn.remove()
    return box


def draw_legend(axes: Axes, made: Sequence[Line2D], columns: int) -> Axes:
    """Draw the legend of all charts in a strip of its own, from the left edge of the page."""
    axes.set_axis_off()
    if made:
        figure = axes.get_figure(root=True)
        assert figure is not None
        # Across in parts of the page, as the strip begins where the charts' frames do.
        across = blended_transform_factory(figure.transFigure, axes.transAxes)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (_MARGIN, 1.0)}
        drawn = axes.legend(
            handles=list(made), ncols=columns, bbox_transform=across, **place, **_FLAT
        )
        drawn.set_in_layout(False)
    return axes
