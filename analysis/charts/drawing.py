"""Drawing with Matplotlib: each function takes an Axes or a Figure and returns it.

What is drawn is decided in `grammar.py`; where words and charts go, in `layout.py`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, pairwise, zip_longest
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from analysis.charts import layout, legend, style, ticks
from analysis.charts.grammar import Chart, FigureData, Grid, Mark, Place, Series, letter, sideways
from analysis.charts.labels import Box, along, place_labels, place_remark
from analysis.charts.style import Venue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.gridspec import GridSpec
    from matplotlib.transforms import Transform

_WORDS_OF_ROW = 1.0
"""Inches of the words of a row of charts, more than they usually take."""
_LOWEST_PICTURE = 0.4
"""Inches of a row of pictures at least; a lower one is broken into several."""
_LETTER = 0.075
"""Inches of a letter below a picture, on average."""
_LEAST_LETTERS = 6
_TRIES = 3
"""Times that words are broken anew after frames have changed; nearly always none is needed."""
_MANY = 30
"""Marks of a line above which it is a curve: only some of its marks are drawn."""
_MARKS_OF_CURVE = 8


def draw(data: FigureData, venue: Venue = style.PLAIN) -> Figure:
    """Draw a figure for the page of a venue.

    Raises:
        RequestError: it would be taller than a figure of that page may be.
    """
    with style.applied(venue):
        # `Figure` and Agg instead of pyplot: pyplot keeps every figure alive and picks a backend
        # that may need a display. The height is replaced once it is known.
        # Of the resolution of a PNG: letters are as wide there as they were measured.
        size = (venue.width, venue.width)
        figure = Figure(figsize=size, dpi=style.DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        if not venue.captioned:
            layout.write_words(figure, data, venue, renderer)
        grids = [row for grid in data.grids for row in _broken(grid, venue.width)]
        data = replace(data, grids=tuple(grids))
        handles = legend.handles(data.charts)
        across, strip = legend.fitting(handles, venue.width)
        plan = layout.plan(data, venue.width, [_shape(grid) for grid in data.grids])
        # Without a legend its row stays, all but empty: the cells of `layout` count from row 1.
        rows = [max(strip, 1e-3), *plan.heights]
        # Tall enough for all words: frames without height have none to be measured.
        figure.set_figheight(
            sum(rows) + _WORDS_OF_ROW * len(rows) + layout.inches_of_words(figure)
        )
        grid = figure.add_gridspec(len(rows), plan.columns, height_ratios=rows)
        legend.draw_legend(figure.add_subplot(grid[0, :]), handles, across)
        places = [figure.add_subplot(grid[cell]) for cell in plan.cells]
        draw_into(data, places)
        if venue.captioned and len(data.charts) == 1:
            places[0].set_title("")  # the caption says it
        for upper, lower in layout.shared(data.charts, plan.cells):
            ticks.share_x(places[upper], places[lower])
        _settle(figure, renderer, data, places, (grid, plan, venue))
    return figure


def _settle(
    figure: Figure,
    renderer: RendererBase,
    data: FigureData,
    places: Sequence[Axes],
    page: tuple[GridSpec, layout.PagePlan, Venue],
) -> None:
    """Fix the layout, then write what depends on it: broken titles, ticks, names of marks."""
    grid, plan, venue = page
    engine = figure.get_layout_engine()
    assert engine is not None, "`draw` asks for constrained layout"
    # Laying out without drawing, which takes as long again: words can be measured afterwards.
    engine.execute(figure)
    for axes, chart in zip_longest(places, data.charts):
        layout.fit_words(axes, renderer)
        if chart is not None and chart.x.ticks:
            ticks.fit_names(axes, renderer)
    _space_lines(figure, venue)
    engine.execute(figure)
    layout.fit_height(figure, grid, plan, data, venue)
    engine.execute(figure)
    # Lower frames may be shorter than their labels are long, and broken labels leave others less.
    for _ in range(_TRIES):
        if not any([layout.fit_words(axes, renderer) for axes in places]):
            break
        _space_lines(figure, venue)
        engine.execute(figure)
    figure.set_layout_engine(None)  # its place is final: saving lays out no more
    # The layout's solver differs in the last bit from run to run; equal data give equal files.
    for axes in figure.axes:
        found = axes.get_position(original=True).bounds
        axes.set_position((*(round(part, 9) for part in found),))
    for axes in places[len(data.charts) :]:
        axes.set_aspect("equal", anchor="W")
    for axes, chart in zip(places, data.charts, strict=False):
        ticks.thin(axes, renderer)
        name_marks(axes, chart, renderer, venue.size * 0.85)
    _space_lines(figure, venue)


def _space_lines(figure: Figure, venue: Venue) -> None:
    # Matplotlib spaces lines by the font's height, which differs between our two families.
    for text in figure.findobj(lambda one: isinstance(one, Text) and "\n" in one.get_text()):
        assert isinstance(text, Text)
        text.set_linespacing(venue.spacing)


def draw_into(data: FigureData, places: Sequence[Axes]) -> Sequence[Axes]:
    """Draw the charts, then the grids of pictures, into given axes, one each."""
    for index, (axes, chart) in enumerate(zip(places, data.charts, strict=False)):
        draw_chart(axes, chart)
        if len(data.charts) > 1:
            axes.set_title(f"{letter(index)} {chart.title}")
    for axes, grid in zip(places[len(data.charts) :], data.grids, strict=True):
        draw_grid(axes, grid)
    return places


def draw_chart(axes: Axes, chart: Chart) -> Axes:
    """Draw one chart but for the names of its marks, which need the final layout."""
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    for series, shifts in zip(chart.series, sideways(chart), strict=True):
        draw_series(axes, series, shifts)
    _scale_to(axes, chart)
    if chart.is_agreement:
        _draw_agreement(axes)
    axes.set_title(chart.title)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    if chart.turns(chart.x):
        axes.invert_xaxis()
    if chart.turns(chart.y):
        axes.invert_yaxis()
    return ticks.set_ticks(axes, chart)


def _draw_agreement(axes: Axes) -> None:
    """Let both axes reach the same values, and draw y = x."""
    limits = [*axes.get_xlim(), *axes.get_ylim()]
    ends = (min(limits), max(limits))
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.plot(ends, ends, **legend.AGREEMENT, scalex=False, scaley=False)


def draw_series(axes: Axes, series: Series, shifts: Sequence[float] = ()) -> Axes:
    """Draw the line, the intervals, the seeds and the marks; digitised ones are hollow.

    Args:
        axes: the axes to draw into.
        series: the marks, and how they look.
        shifts: points of print by which each mark moves sideways; none moves by default.
    """
    xs, ys = [m.x for m in series.marks], [m.y for m in series.marks]
    colour = series.look.colour
    if series.joined and len(xs) > 1:
        # Fronts and fits are dashed: they are derived from marks and join no sizes.
        line = "--" if series.dashed else "-"
        axes.plot(xs, ys, line, color=colour, linewidth=1.2, zorder=2)
    if series.banded:
        # The mean where a step has one seed only: the band has no width there.
        lows, highs = zip(
            *((m.y_bar.low, m.y_bar.high) if m.y_bar else (m.y, m.y) for m in series.marks),
            strict=True,
        )
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0, zorder=1.5)
    if series.arrows:
        for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):
            # An arrow ends 3 points before the centre of the next mark, at its rim.
            style_of = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkB": 3}
            axes.annotate("", (x1, y1), (x0, y0), arrowprops=style_of, zorder=2)
    if not series.look.marker:
        return axes
    # Every mark of a long curve would hide the line; a few still tell the shapes apart.
    is_curve = series.joined and not series.arrows and len(xs) > _MANY
    step = len(xs) // _MARKS_OF_CURVE if is_curve else 1
    for mark, shift in list(zip(series.marks, shifts or [0.0] * len(xs), strict=True))[::step]:
        _draw_mark(axes, mark, series, _shifted(axes, shift))
    return axes


def _draw_mark(axes: Axes, mark: Mark, series: Series, where: Transform) -> None:
    colour, marker = series.look
    if len(mark.seeds) > 1 and not series.banded:
        # Above intervals and below the labels (zorder): a seed must not vanish behind its mean.
        seeds: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": colour}
        seeds |= {"markersize": 3.0, "markeredgewidth": 0.7, "zorder": 3.1, "clip_on": False}
        axes.plot(*zip(*mark.seeds, strict=True), marker, transform=where, **seeds)
    bars = ((mark.x_bar, axes.hlines, mark.y), (mark.y_bar, axes.vlines, mark.x))
    for bar, draw_bar, at in bars:
        if bar is not None and not series.banded:
            draw_bar(at, bar.low, bar.high, color=colour, linewidth=1.0, transform=where)
    face = legend.face(colour, mark.reading, marker)
    # Unclipped: an axis of shares ends at its marks.
    face |= {"markersize": 4.5, "zorder": 3, "clip_on": False}
    axes.plot([mark.x], [mark.y], marker, transform=where, **face)


def _shifted(axes: Axes, points: float) -> Transform:
    figure = axes.get_figure(root=True)
    assert figure is not None
    # In points of print, not in data: a logarithmic axis would stretch the shift by the value.
    return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def _scale_to(axes: Axes, chart: Chart) -> None:
    """Set limits from the data: artists that moved sideways do not count for matplotlib's own."""
    # All in data units; the dodge is in points of print and must not widen the axes.
    corners: list[Place] = []
    # Seeds and ends of intervals lie outside the means and must be inside the frame.
    for mark in chart.marks:
        corners += [(mark.x, mark.y), *mark.seeds, *chain(*mark.intervals)]
    axes.update_datalim([*corners, *chart.reach])
    # Room for the labels beside the outermost marks, which Matplotlib's 5 % does not leave; the
    # marks of curves have none.
    is_curves = any(len(series.marks) > _MANY for series in chart.series)
    axes.margins(0.03 if is_curves else 0.12, 0.14)
    axes.autoscale_view()
    if (ends := chart.x.bounds) is not None:
        axes.set_xlim(*np.clip(axes.get_xlim(), *ends))
    if (ends := chart.y.bounds) is not None:
        axes.set_ylim(*np.clip(axes.get_ylim(), *ends))


def _shape(grid: Grid) -> float:
    """Measure width over height of a row of pictures, placed side by side."""
    shapes = [picture.shape[1] / picture.shape[0] for picture in _pictures(grid)]
    return float(np.mean(shapes)) * (grid.room or len(shapes))


def _broken(grid: Grid, inches: float) -> list[Grid]:
    """Break a grid into rows, equally long, where one as wide as the page would be too low.

    Heads are broken to the width of a picture, below which they would cover each other.
    """
    count = len(grid.columns)
    most = int(inches / _LOWEST_PICTURE / (_shape(grid) / count))
    rows = -(-count // max(1, most))
    room = -(-count // rows)
    letters = max(_LEAST_LETTERS, int(inches / room / _LETTER))
    columns = [(_head(head, letters), origin, png) for head, origin, png in grid.columns]
    parts = [tuple(columns[start : start + room]) for start in range(0, count, room)]
    # Named once, above the first.
    return [Grid(grid.title if not at else "", part, room) for at, part in enumerate(parts)]


def _head(words: str, letters: int) -> str:
    """Break a setting's name into lines: between words, and in long keys after `_` and `=`."""
    lines = [""]
    for piece in re.findall(r" ?[^ _=]*[_=]+| ?[^ _=]+", words):
        if len(lines[-1] + piece) <= letters:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
    # A piece may still be longer than a line.
    return "\n".join(fill(line, letters) for line in lines if line)


def _pictures(grid: Grid) -> list[np.ndarray]:
    return [imread(io.BytesIO(png), format="png") for *_, png in grid.columns]


def draw_grid(axes: Axes, grid: Grid) -> Axes:
    """Draw the pictures of a grid side by side, with their heads below."""
    pictures = _pictures(grid)
    height = max(picture.shape[0] for picture in pictures)
    gap = max(2, height // 40)
    left = 0
    ticks = []
    for picture in pictures:
        tall, wide = picture.shape[:2]
        # All pictures get the height of the tallest, so that sizes can be compared at a glance.
        shown = (left, left + wide * height / tall, height, 0)
        # "nearest": smoothing would hide the artefacts that the pictures are shown for.
        axes.imshow(picture, extent=shown, interpolation="nearest")
        ticks.append((shown[0] + shown[1]) / 2)
        left = int(shown[1]) + gap
    # Each `imshow` sets the limits to its own picture only. A last row that is not full keeps the
    # scale of the others.
    axes.set_xlim(0, left * (grid.room or len(pictures)) / len(pictures) - gap)
    axes.set_ylim(height, 0)
    # Until the page is laid out: a frame that is taller than its pictures would leave words room,
    # which the page's height then lacks.
    axes.set_aspect("auto")
    axes.grid(False)
    axes.set_title(grid.title)
    axes.set_xticks(ticks, [head for head, *_ in grid.columns])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return axes


def name_marks(axes: Axes, chart: Chart, renderer: RendererBase, size: float) -> Axes:
    """Write remarks and the labels of marks where they cover neither marks nor lines."""
    scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    boxes: list[Box] = []
    drawn: dict[int, tuple[float, float]] = {}  # by identity: two marks may have equal numbers
    for series, shifts in zip(chart.series, sideways(chart), strict=True):
        places = axes.transData.transform([(m.x, m.y) for m in series.marks])
        if series.joined:
            boxes += [box for ends in pairwise(places) for box in along(*ends)]
        # Marks are drawn beside their place where intervals would cover each other.
        for mark, (x, y), shift in zip(series.marks, places, shifts, strict=True):
            if series.look.marker:
                boxes += _taken(axes, mark, shift * scale, scale)
            drawn[id(mark)] = (float(x) + shift * scale, float(y))
    # The highest first: its label finds the most room.
    labels = [(same[0].label, [drawn[id(one)] for one in same]) for same in chart.namesakes]
    named = place_labels(axes, renderer, labels, boxes, size)
    boxes += [Box(*text.get_window_extent(renderer).extents) for text in named]
    # Remarks last: they say again what the caption says, and names of marks do not.
    for remark in chart.remarks:
        at = axes.transData.transform((remark.x, remark.y))
        boxes += place_remark(axes, renderer, remark, (float(at[0]), float(at[1])), boxes, size)
    return axes


def _taken(axes: Axes, mark: Mark, shift: float, scale: float) -> Iterable[Box]:
    """List the pixel boxes of a mark, its intervals and its seeds, moved by so many pixels."""

    def box(low: Place, high: Place, radius: float) -> Box:
        ends = axes.transData.transform([low, high])
        (x0, y0), (x1, y1) = ends.min(0), ends.max(0)  # an axis may run backwards
        r = radius * scale
        return Box(x0 + shift - r, y0 - r, x1 + shift + r, y1 + r)

    at = (mark.x, mark.y)
    yield box(at, at, 3.0)
    yield from (box(*ends, 1.5) for ends in mark.intervals)
    yield from (box(seed, seed, 2.0) for seed in mark.seeds)
