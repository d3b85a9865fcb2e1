"""Drawing a `Plate`: each function takes an Axes or a Figure and returns it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from analysis.charts import style
from analysis.charts.grammar import Chart, Grid, Mark, Plate, Series, letters
from analysis.charts.labels import Box, place_labels
from analysis.charts.style import Venue
from gigatok.names import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

_GREY = "#444444"
_HOLLOW = ("digitised", "secondary")
_CAPTION_SCALE = 0.72
_BOXES_PER_SEGMENT = 30
_TITLE_SCALE = 1.1
_BOLD = 1.12
"""How much wider bold letters are."""
_DECADES = 300
"""Span of a logarithmic axis above which only powers of ten are marked."""
_BIG = 3
"""Columns at which a big chart takes four cells; also the most there are."""
_NARROWEST = 2.1
"""Inches of a chart with its labels."""
_MANY = 30
"""Marks of a line above which they shrink."""
_HANDLE = 5
"""Width of a line and its spaces in a legend, in font sizes."""
_CHARACTER = 0.53
"""Mean width of a character, in font sizes."""


def draw(plate: Plate, venue: Venue = style.PLAIN, *, width: float | None = None) -> Figure:
    """Draw a figure at a venue's text width, or at `width` inches."""
    inches = width or venue.text
    with style.applied(venue):
        figure = Figure(figsize=(inches, 1), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        words = _words(figure, plate, venue)
        handles = _handles(plate)
        across = _legend_columns(handles, inches, venue.size)
        strip = -(-len(handles) // across) * venue.size * 1.5 / 72
        cells, rows, columns = _cells(plate, inches)
        tall = _heights(plate, inches, rows, columns)
        figure.set_figheight(sum(tall) + strip + words)
        ratios = [max(strip, 1e-3), *tall]
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=ratios)
        _legend(figure.add_subplot(grid[0, :]), handles, across)
        places = [figure.add_subplot(grid[cell]) for cell in cells]
        draw_into(plate, places)
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        figure.draw_without_rendering()
        for axes in places:
            fit_words(axes, renderer)
        for text in figure.findobj(lambda one: isinstance(one, Text) and "\n" in one.get_text()):
            assert isinstance(text, Text)
            text.set_linespacing(venue.spacing)
        figure.draw_without_rendering()  # tick texts depend on the size of the axes
        figure.set_layout_engine(None)  # its place is final: saving lays out no more
        for axes, chart in zip(places, plate.charts, strict=False):
            name_marks(axes, chart, renderer, venue.size * 0.85)
    return figure


def _heights(plate: Plate, inches: float, rows: int, columns: int) -> list[float]:
    """Inches of each row of charts, then of pictures."""
    across = inches / columns
    row = min(2.2, max(1.6 if across < _NARROWEST else 1.75, 0.86 * across))
    charts = [row] * (rows - len(plate.grids))
    if plate.charts and plate.charts[0].big and columns < _BIG:
        charts[0] *= 1.5
    return charts + [_tall(grid, inches) for grid in plate.grids]


def _words(figure: Figure, plate: Plate, venue: Venue) -> float:
    """Write title and caption; the inches they take."""
    inches, left = figure.get_figwidth(), {"x": 0.01, "ha": "left"}
    large, small = venue.size * _TITLE_SCALE, venue.size * _CAPTION_SCALE
    title = _wrapped([plate.title], inches, large * _BOLD)
    caption = _wrapped(_caption(plate), inches, small)
    figure.suptitle("\n".join(title), size=large, weight="bold", **left)
    figure.supxlabel("\n".join(caption), size=small, color=_GREY, **left)
    return 1.25 * (len(title) * large + len(caption) * small) / 72 + 0.15


def draw_into(plate: Plate, places: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the charts, then the grids of pictures, into given axes, one each."""
    charts = letters(plate.charts) if len(plate.charts) > 1 else plate.charts
    for axes, chart in zip(places, charts, strict=False):
        draw_chart(axes, chart)
    for axes, grid in zip(places[len(charts) :], plate.grids, strict=True):
        draw_grid(axes, grid)
    return places


def draw_chart(axes: Axes, chart: Chart) -> Axes:
    """Draw one chart but for the names of its marks, which need the final layout."""
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    for series in chart.series:
        draw_series(axes, series)
    axes.margins(0.12, 0.14)
    axes.set_title(chart.title)
    axes.set_xlabel(chart.x.label)
    axes.set_ylabel(chart.y.label)
    if chart.better_up:
        _turn(axes, chart)
    for remark in chart.remarks:
        axes.annotate(
            remark.text,
            (remark.x, remark.y),
            color=remark.colour,
            weight="bold",
            va="center",
            size="small",
        )
    return _ticks(axes, chart)


def draw_series(axes: Axes, series: Series) -> Axes:
    """Draw the line, the intervals and the marks; digitised ones are hollow."""
    xs, ys = [m.x for m in series.marks], [m.y for m in series.marks]
    if series.joined and len(xs) > 1:
        line = "--" if series.dashed else "-"
        axes.plot(xs, ys, line, color=series.colour, linewidth=1.2, zorder=2)
    if series.arrows:
        for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
            style_of = {"arrowstyle": "-|>", "color": series.colour, "lw": 1.4}
            axes.annotate("", (x1, y1), (x0, y0), arrowprops=style_of, zorder=2)
    for mark in series.marks:
        if mark.low is not None and mark.high is not None:
            axes.vlines(mark.x, mark.low, mark.high, color=series.colour, linewidth=1.0)
        axes.plot(
            [mark.x],
            [mark.y],
            series.marker,
            markersize=2.0 if series.joined and len(series.marks) > _MANY else 4.5,
            color=series.colour,
            markerfacecolor="white" if mark.reading in _HOLLOW else series.colour,
            zorder=3,
        )
    return axes


def _pictures(grid: Grid) -> list[np.ndarray]:
    return [imread(io.BytesIO(png), format="png") for *_, png in grid.columns]


def _tall(grid: Grid, inches: float) -> float:
    """Height in inches of pictures that together fill the width, and of their words."""
    shapes = [picture.shape for picture in _pictures(grid)]
    return inches / float(sum(wide / tall for tall, wide, *_ in shapes)) + 0.5


def draw_grid(axes: Axes, grid: Grid) -> Axes:
    """Pictures of each size beside each other, heads below."""
    pictures = _pictures(grid)
    height = max(picture.shape[0] for picture in pictures)
    gap = max(2, height // 40)
    left = 0
    ticks = []
    for picture in pictures:
        tall, wide = picture.shape[:2]
        shown = (left, left + wide * height / tall, height, 0)
        axes.imshow(picture, extent=shown, interpolation="nearest")
        ticks.append((shown[0] + shown[1]) / 2)
        left = int(shown[1]) + gap
    axes.set_xlim(0, left - gap)
    axes.set_ylim(height, 0)
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set_title(grid.title)
    axes.set_xticks(ticks, [head for head, *_ in grid.columns])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return axes


def fit_words(axes: Axes, renderer: RendererBase) -> Axes:
    """Break a title that is wider than its axes, and a label of y that is taller, at its unit."""
    label = axes.yaxis.label
    height = axes.get_window_extent(renderer).height
    if label.get_window_extent(renderer).height > height:
        axes.set_ylabel(label.get_text().replace(" (", "\n(", 1))
    text = axes.get_title(loc="left")
    if not text:
        return axes
    title = axes.set_title(text, loc="left")
    share = axes.get_window_extent(renderer).width / title.get_window_extent(renderer).width
    if share < 1:
        axes.set_title("\n".join(textwrap.wrap(text, int(len(text) * share))), loc="left")
    return axes


def name_marks(axes: Axes, chart: Chart, renderer: RendererBase, size: float) -> Axes:
    """Write the labels of marks where they cover neither marks nor lines."""
    scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    boxes: list[Box] = []
    for text in axes.texts:
        if text.get_text():
            frame = text.get_window_extent(renderer)
            boxes.append(Box(frame.x0, frame.y0, frame.x1, frame.y1))
    labels = []
    for series in chart.series:
        places = axes.transData.transform([(m.x, m.y) for m in series.marks])
        boxes += [
            Box(x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale) for x, y in places
        ]
        if series.joined:
            boxes += _along(places)
        labels += [
            (mark.label, (float(x), float(y)))
            for mark, (x, y) in zip(series.marks, places, strict=True)
            if mark.label
        ]
    place_labels(axes, renderer, sorted(labels, key=lambda one: -one[1][1]), boxes, size=size)
    return axes


def _along(places: np.ndarray) -> list[Box]:
    """Small pixel boxes along a line."""
    steps = np.linspace(0, 1, _BOXES_PER_SEGMENT)[:, None]
    found = []
    for start, end in pairwise(places):
        found += [Box(x - 1, y - 1, x + 1, y + 1) for x, y in start + steps * (end - start)]
    return found


def _turn(axes: Axes, chart: Chart) -> None:
    for key, invert in ((chart.x.key, axes.invert_xaxis), (chart.y.key, axes.invert_yaxis)):
        if key in METRICS and METRICS[key].better == "lower":
            invert()
    axes.set_xlabel(f"{chart.x.label.rstrip(' ↓↑')}, better →")
    axes.set_ylabel(f"{chart.y.label.rstrip(' ↓↑')}, better →")


def _ticks(axes: Axes, chart: Chart) -> Axes:
    if chart.ticks:
        axes.set_xticks([x for x, _ in chart.ticks], [text for _, text in chart.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    for one, log in ((axes.xaxis, chart.log_x and not chart.ticks), (axes.yaxis, chart.log_y)):
        if log:
            low, high = sorted(one.get_view_interval())
            steps = (1.0,) if high > _DECADES * low else (1.0, 2.0, 5.0)
            one.set_major_locator(LogLocator(subs=steps, numticks=12))
            one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            one.set_minor_formatter(NullFormatter())
    return axes


def _cells(plate: Plate, inches: float) -> tuple[list[tuple[slice, slice]], int, int]:
    """Where each chart and grid goes, below the strip of the legend; rows and columns."""
    count = len(plate.charts)
    columns = max(1, min(count, _BIG, int(inches / _NARROWEST))) if count else 1
    is_narrow = columns == 1 and count > _BIG  # one below the other would be longer than a page
    if is_narrow or count in (2, 4):
        columns = 2 if is_narrow else min(columns, 2)
    cells: list[tuple[slice, slice]] = []
    taken: set[tuple[int, int]] = set()
    large = (2, 2) if columns == _BIG else (1, 2) if is_narrow else (1, 1)
    for tall, wide in [large if chart.big else (1, 1) for chart in plate.charts]:
        row, column = next(
            (r, c)
            for r in range(count + 2)
            for c in range(columns - wide + 1)
            if not {(r + i, c + j) for i in range(tall) for j in range(wide)} & taken
        )
        taken |= {(row + i, column + j) for i in range(tall) for j in range(wide)}
        cells.append((slice(row + 1, row + tall + 1), slice(column, column + wide)))
    rows = max((cell[0].stop - 1 for cell in cells), default=0)
    for _ in plate.grids:
        cells.append((slice(rows + 1, rows + 2), slice(0, columns)))
        rows += 1
    return cells, rows, columns


def _handles(plate: Plate) -> list[Line2D]:
    """A handle for each series by name; none where there is one series only."""
    shown: dict[str, Series] = {}
    for chart in plate.charts:
        for series in chart.series:
            shown.setdefault(series.name, series)
    if len(shown) < 2:
        return []
    return [
        Line2D(
            [],
            [],
            color=s.colour,
            marker=s.marker,
            markersize=4.5,
            linestyle=("--" if s.dashed else "-") if s.joined else "",
            markerfacecolor="white" if _hollow(s.marks) else s.colour,
            label=s.name,
        )
        for s in shown.values()
    ]


def _legend_columns(handles: Sequence[Line2D], inches: float, size: float) -> int:
    """How many handles fit beside each other."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    each = (longest * _CHARACTER + _HANDLE) * size / 72
    return max(1, int(inches / each))


def _legend(axes: Axes, handles: Sequence[Line2D], columns: int) -> Axes:
    """The legend of all charts, in a strip of its own."""
    axes.set_axis_off()
    if handles:
        axes.legend(
            handles=handles,
            loc="center left",
            ncols=min(columns, len(handles)),
            frameon=False,
            borderaxespad=0,
            borderpad=0,
        )
    return axes


def _hollow(marks: Sequence[Mark]) -> bool:
    return bool(marks) and marks[0].reading in _HOLLOW


def _caption(plate: Plate) -> list[str]:
    """The notes, and how the numbers were obtained."""
    readings = {
        "digitised": "Hollow marks and values of figures: read off the authors' figures by pixel.",
        "secondary": "Hollow, secondary: from a copy or a note, not from the work itself.",
    }
    how = [text for reading, text in readings.items() if reading in plate.readings]
    absent = [f"Not shown: {'; '.join(plate.missing)}."] if plate.missing else []
    return [*plate.notes, *how, *absent]


def _wrapped(texts: Sequence[str], inches: float, size: float) -> list[str]:
    width = int(inches * 72 / (size * _CHARACTER))
    return [line for text in texts for line in textwrap.wrap(text, width)]
