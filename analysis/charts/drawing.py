"""Drawing with Matplotlib: each function takes an Axes or a Figure and returns it.

What is drawn is decided in `grammar.py`; where words and charts go, in `layout.py`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, pairwise, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from analysis.charts import layout, style
from analysis.charts.grammar import (
    DERIVED,
    HOLLOW,
    Chart,
    ChartAxis,
    FigureData,
    Grid,
    Mark,
    Place,
    Series,
    letter,
)
from analysis.charts.labels import Box, place_labels
from analysis.charts.style import Look, Venue
from gigatok.names import PARAMETERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.transforms import Transform

_REMARK: dict[str, Any] = {"weight": "bold", "va": "center", "size": "small"}
_AGREEMENT: dict[str, Any] = {"color": "#999999", "linestyle": ":", "linewidth": 1.0, "zorder": 1}
_RIM = "#000000"
_BOXES_PER_SEGMENT = 30
# As a ratio of the largest to the smallest value: more than two and a half decades.
_DECADES = 300
"""Span of a logarithmic axis above which only powers of ten are marked."""
_MANY = 30
"""Marks of a line above which it is a curve: only some of its marks are drawn."""
_MARKS_OF_CURVE = 8
_SIZES = 6
"""Model sizes up to which each can have a tick of its own."""
_MOST_HANDLES = 20
"""Series up to which the legend has each; of more it has some, spread evenly."""
_DODGE, _WIDEST_DODGE = 5.0, 24.0
"""Points of print between marks whose intervals would cover each other, and over all of them."""


def draw(data: FigureData, venue: Venue = style.PLAIN) -> Figure:
    """Draw a figure for the page of a venue."""
    inches = venue.width
    with style.applied(venue):
        # `Figure` and Agg instead of pyplot: pyplot keeps every figure alive and picks a backend
        # that may need a display. The height of 1 is replaced once it is known.
        figure = Figure(figsize=(inches, 1), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        # The height follows from what is to be placed: words, legend, rows of charts, pictures.
        words = 0.1 if venue.captioned else layout.write_words(figure, data, venue)
        handles = legend_handles(data.charts)
        across = layout.legend_columns([str(h.get_label()) for h in handles], inches, venue.size)
        # Rows of the legend, rounded up, at one and a half lines of print each; 72 points are an
        # inch.
        strip = -(-len(handles) // across) * venue.size * 1.5 / 72
        most = venue.height and venue.height * style.MOST_OF_PAGE - strip - words
        plan = layout.plan(data, inches, [_shape(grid) for grid in data.grids], most)
        figure.set_figheight(sum(plan.heights) + strip + words)
        # Without a legend its row stays, all but empty: the cells of `layout` count from row 1.
        grid = figure.add_gridspec(
            len(plan.heights) + 1, plan.columns, height_ratios=[max(strip, 1e-3), *plan.heights]
        )
        draw_legend(figure.add_subplot(grid[0, :]), handles, across)
        places = [figure.add_subplot(grid[cell]) for cell in plan.cells]
        draw_into(data, places)
        if venue.captioned and len(data.charts) == 1:
            places[0].set_title("")  # the caption says it
        _settle(figure, canvas, data, places, venue)
    return figure


def _settle(
    figure: Figure, canvas: FigureCanvasAgg, data: FigureData, places: Sequence[Axes], venue: Venue
) -> None:
    """Fix the layout, then write what depends on it: broken titles, ticks, names of marks."""
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    # Constrained layout gives sizes only while it draws: words can be measured afterwards.
    figure.draw_without_rendering()
    for axes, chart in zip_longest(places, data.charts):
        layout.fit_words(axes, renderer)
        if chart is not None and chart.x.ticks:
            layout.slant_names(axes, renderer)
    # Matplotlib spaces lines by the font's height, which differs between our two families.
    for text in figure.findobj(lambda one: isinstance(one, Text) and "\n" in one.get_text()):
        assert isinstance(text, Text)
        text.set_linespacing(venue.spacing)
    figure.draw_without_rendering()  # tick texts depend on the size of the axes
    figure.set_layout_engine(None)  # its place is final: saving lays out no more
    # The layout's solver differs in the last bit from run to run; equal data give equal files.
    for axes in figure.axes:
        found = axes.get_position(original=True).bounds
        axes.set_position((*(round(part, 9) for part in found),))
    for axes, chart in zip(places, data.charts, strict=False):
        layout.thin_ticks(axes, renderer)
        name_marks(axes, chart, renderer, venue.size * 0.85)


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
    else:
        # Small charts: Matplotlib's own choice of up to nine ticks would touch.
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if not chart.log_x:
        whole = all(mark.x.is_integer() for mark in chart.marks)  # no half training steps
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
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
    for remark in chart.remarks:
        at = (remark.x, remark.y)
        axes.annotate(remark.text, at, color=remark.colour, **_REMARK)
    _mark_ticks(axes.xaxis, chart.x, chart.xs, log=chart.log_x)
    _mark_ticks(axes.yaxis, chart.y, [mark.y for mark in chart.marks], log=chart.log_y)
    if not chart.x.ticks and chart.x.metric.unit == PARAMETERS:
        _tick_sizes(axes, chart)
    return axes


def _draw_agreement(axes: Axes) -> None:
    """Draw y = x as far as both axes reach."""
    lows, highs = zip(axes.get_xlim(), axes.get_ylim(), strict=True)
    ends = [max(lows), min(highs)]
    if ends[0] < ends[1]:
        axes.plot(ends, ends, **_AGREEMENT, scalex=False, scaley=False)


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
        seeds |= {"markersize": 3.0, "markeredgewidth": 0.7, "zorder": 3.1}
        axes.plot(*zip(*mark.seeds, strict=True), marker, transform=where, **seeds)
    bars = ((mark.x_bar, axes.hlines, mark.y), (mark.y_bar, axes.vlines, mark.x))
    for bar, draw_bar, at in bars:
        if bar is not None and not series.banded:
            draw_bar(at, bar.low, bar.high, color=colour, linewidth=1.0, transform=where)
    face = _face(colour, mark.reading, marker)
    # Unclipped: an axis of shares ends at its marks.
    face |= {"markersize": 4.5, "zorder": 3, "clip_on": False}
    axes.plot([mark.x], [mark.y], marker, transform=where, **face)


def _face(colour: str, reading: str, marker: str) -> dict[str, Any]:
    """Choose fill and rim of a mark: hollow if read off a picture, black-rimmed if from a run."""
    is_cross = marker in "x+|"  # these are strokes: a rim would be all of them
    return {
        "color": colour,
        "markerfacecolor": "white" if reading in HOLLOW else colour,
        "markeredgecolor": _RIM if reading == "run" and not is_cross else colour,
        "markeredgewidth": 0.7 if reading == "run" and not is_cross else 1.0,
    }


def sideways(chart: Chart) -> list[list[float]]:
    """Choose by how many points each mark moves, so that intervals at one x stay apart."""
    by_place: dict[float, list[Mark]] = {}
    for mark in chart.marks:
        if mark.y_bar is not None:
            by_place.setdefault(mark.x, []).append(mark)
    return [[_shift(mark, by_place.get(mark.x, [])) for mark in s.marks] for s in chart.series]


def _shift(mark: Mark, others: Sequence[Mark]) -> float:
    """Place a mark among those of its x whose intervals meet its own."""
    bar = mark.y_bar
    if bar is None:
        return 0.0
    # Marks whose intervals do not meet stay at their true x.
    near = [m for m in others if m.y_bar and m.y_bar.low <= bar.high and bar.low <= m.y_bar.high]
    # By identity: two marks may have equal numbers, and both need a place.
    place = next(i for i, other in enumerate(near) if other is mark)
    step = min(_DODGE, _WIDEST_DODGE / max(len(near) - 1, 1))
    return float(place - (len(near) - 1) / 2) * step


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
    # Room for the labels beside the outermost marks, which Matplotlib's 5 % does not leave.
    axes.margins(0.12, 0.14)
    axes.autoscale_view()
    if (ends := chart.x.bounds) is not None:
        axes.set_xlim(*np.clip(axes.get_xlim(), *ends))
    if (ends := chart.y.bounds) is not None:
        axes.set_ylim(*np.clip(axes.get_ylim(), *ends))


def _shape(grid: Grid) -> float:
    """Measure width over height of all pictures of a grid, placed side by side."""
    return float(sum(picture.shape[1] / picture.shape[0] for picture in _pictures(grid)))


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
    # Each `imshow` sets the limits to its own picture only.
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


def name_marks(axes: Axes, chart: Chart, renderer: RendererBase, size: float) -> Axes:
    """Write the labels of marks where they cover neither marks nor lines."""
    scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    boxes: list[Box] = []
    for text in axes.texts:
        if text.get_text():
            boxes.append(Box(*text.get_window_extent(renderer).extents))
    labels = []
    for series, shifts in zip(chart.series, sideways(chart), strict=True):
        places = axes.transData.transform([(m.x, m.y) for m in series.marks])
        if series.joined:
            boxes += _along(places)
        # Marks are drawn beside their place where intervals would cover each other.
        for mark, (x, y), shift in zip(series.marks, places, shifts, strict=True):
            if series.look.marker:
                boxes += _taken(axes, mark, shift * scale, scale)
            if mark.label:
                labels.append((mark.label, (float(x) + shift * scale, float(y))))
    # The highest first: its label finds the most room.
    place_labels(axes, renderer, sorted(labels, key=lambda one: -one[1][1]), boxes, size)
    return axes


def _along(places: np.ndarray) -> list[Box]:
    """List small pixel boxes along a line, for labels to keep free."""
    steps = np.linspace(0, 1, _BOXES_PER_SEGMENT)[:, None]
    found = []
    for start, end in pairwise(places):
        # One box around a whole segment would forbid the empty triangle on either side of a
        # slanted line.
        found += [Box(x - 1, y - 1, x + 1, y + 1) for x, y in start + steps * (end - start)]
    return found


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


def _mark_ticks(
    one: XAxis | YAxis, axis: ChartAxis, values: Sequence[float], *, log: bool
) -> None:
    """Write the figure's own ticks, powers of two, or plain numbers on a logarithmic axis."""
    ticks = axis.ticks or [(at, f"{at:.7g}") for at in axis.powers(values)]
    if ticks:
        one.set_ticks([at for at, _ in ticks], labels=[text for _, text in ticks])
        one.set_minor_locator(NullLocator())
    elif log:
        # An axis that runs backwards has its interval backwards, too.
        low, high = sorted(one.get_view_interval())
        steps = (1.0,) if high > _DECADES * low else (1.0, 2.0, 5.0)
        one.set_major_locator(LogLocator(subs=steps, numticks=12))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_formatter(NullFormatter())


def _tick_sizes(axes: Axes, chart: Chart) -> None:
    """Mark the model sizes themselves, where they are few."""
    sizes = sorted({mark.x for mark in chart.marks if mark.reading not in DERIVED})
    if len(sizes) > _SIZES:
        return
    # A logarithmic axis around one value would show ticks of unrelated decades.
    if len(sizes) == 1:
        axes.set_xlim(sizes[0] * 0.9, sizes[0] * 1.1)
    metric = chart.x.metric
    # `text` takes a stored value, and the marks are in printed units already (millions).
    axes.set_xticks(sizes, [metric.text(size / metric.factor) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())


def legend_handles(charts: Sequence[Chart]) -> list[Line2D]:
    """Make a handle for each series by name; none where there is one series only.

    Fronts of several series share a handle, and fits likewise: their colours are those of the
    series. Of very many series some have one, from the first to the last.
    """
    # Series of one name share a handle: looks agree over all charts of a figure.
    shown: dict[str, Series] = {}
    for series in (series for chart in charts for series in chart.series):
        shown.setdefault(series.name, series)
    measured = [series for series in shown.values() if not series.is_derived]
    derived = [series for series in shown.values() if series.is_derived]
    handles = [_handle(series, series.name) for series in _spread(measured)]
    if (more := len(measured) - len(handles)) > 0:
        handles.append(Line2D([], [], linestyle="", label=f"… {more} between them"))
    for words in ("front", "fit"):
        mine = [series for series in derived if series.marks[0].reading == words]
        handles += [_handle(mine[0], mine[0].name)] if len(mine) == 1 else []
        if len(mine) > 1:
            grey = replace(mine[0], look=Look(style.GREY, ""))
            handles.append(_handle(grey, f"{words}, in the colour of the marks"))
    if any(chart.is_agreement for chart in charts):
        handles.append(Line2D([], [], **_AGREEMENT, label="y = x"))
    return handles if len(handles) > 1 else []


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
    face = _face(colour, reading, marker)
    face["linestyle"] = ("--" if series.dashed else "-") if series.joined else ""
    return Line2D([], [], marker=marker, markersize=4.5, label=name, **face)


def draw_legend(axes: Axes, handles: Sequence[Line2D], columns: int) -> Axes:
    """Draw the legend of all charts, in a strip of its own."""
    axes.set_axis_off()
    if handles:
        flat: dict[str, Any] = {"frameon": False, "borderaxespad": 0, "borderpad": 0}
        ncols = min(columns, len(handles))
        axes.legend(handles=handles, loc="center left", ncols=ncols, **flat)
    return axes
