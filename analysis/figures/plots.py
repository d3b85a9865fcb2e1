"""Drawing: each function takes an Axes and returns it. What is drawn is decided in `points.py`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from analysis.charts import style
from analysis.charts.labels import Box, place_labels
from analysis.figures.points import Panel, Point
from analysis.tables.results import format_value
from gigatok.names import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.transforms import Transform

_CAPTION_SIZE = 6.5
_CAPTION_CHARACTERS = 132
_TITLE_CHARACTERS = 80
_LINE = "#BBBBBB"
_BOXES_PER_SEGMENT = 40
_DODGE = 5.0
"""Points of print between marks that share their x."""
_MIN_TICK_GAP = 0.11
"""Fraction of the axis between two size ticks, below which one of them is left out."""


@dataclass(frozen=True)
class FigureInfo:
    """A whole figure as data.

    Attributes:
        name: file stem.
        title: the sweep's question.
        caption: small lines below: what bars mean, protocols, what is missing.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    caption: tuple[str, ...]


def draw_figure(info: FigureInfo) -> Figure:
    """Draw every panel, then the names of the points once the layout is final."""
    with style.applied():
        caption = [line for text in info.caption for line in _wrap(text, _CAPTION_CHARACTERS)]
        columns = min(2, len(info.panels))
        rows = -(-len(info.panels) // columns)
        height = style.PANEL_HEIGHT * rows + 0.11 * len(caption) + 0.45
        figure = Figure(figsize=(style.TEXT_WIDTH, height), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        title = "\n".join(_wrap(info.title, _TITLE_CHARACTERS))
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.supxlabel(
            "\n".join(caption), x=0.01, ha="left", fontsize=_CAPTION_SIZE, color="#444444"
        )
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, panel in zip(grid, info.panels, strict=False):
            draw_panel(axes, panel)
        for axes in grid[len(info.panels) :]:
            axes.set_axis_off()
        _settle_layout(figure)
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        for axes, panel in zip(grid, info.panels, strict=False):
            draw_names(axes, panel, renderer)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> Axes:
    """Draw the marks of one panel: seeds small, means large with their interval."""
    for line in panel.lines:
        xs, ys = [p.x.mean for p in line], [p.y.mean for p in line]
        axes.plot(xs, ys, color=_LINE, linewidth=0.9, zorder=1)
    for point, shift in zip(panel.points, sideways(panel), strict=True):
        draw_point(axes, point, shift)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x.label)
    axes.set_ylabel(panel.y.label)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if panel.log_x:
        axes.set_xscale("log")
    _scale_to(axes, panel.points)
    return draw_ticks(axes, panel)


def draw_point(axes: Axes, point: Point, shift: float = 0.0) -> Axes:
    """Draw one setting, moved sideways by `shift` points of print."""
    colour, marker = style.colour(point.tokenizer), style.marker(point.regularised)
    where = _shifted(axes, shift)
    if len(point.seeds) > 1:
        axes.plot(
            [seed.x for seed in point.seeds],
            [seed.y for seed in point.seeds],
            linestyle="",
            marker=marker,
            markersize=3.2,
            markerfacecolor="white",
            markeredgecolor=colour,
            markeredgewidth=0.8,
            zorder=3.1,
            transform=where,
        )
    axes.errorbar(
        point.x.mean,
        point.y.mean,
        xerr=point.x.half_width or None,
        yerr=point.y.half_width or None,
        marker=marker,
        markersize=6,
        markeredgewidth=0.8,
        markeredgecolor="white",
        color=colour,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3,
        transform=where,
    )
    return axes


def sideways(panel: Panel) -> list[float]:
    """By how many points of print each mark moves, so that bars at one x stay apart."""
    shifts = []
    for point in panel.points:
        group = [p for p in panel.points if p.x.mean == point.x.mean and _bars_meet(p, point)]
        shifts.append((group.index(point) - (len(group) - 1) / 2) * _DODGE)
    return shifts


def draw_ticks(axes: Axes, panel: Panel) -> Axes:
    """Ticks of x: names, the model sizes themselves, or what matplotlib chooses."""
    if panel.x.categories:
        axes.set_xticks(range(len(panel.x.categories)), panel.x.categories)
    elif panel.x.counts_parameters:
        sizes = sorted({point.x.mean for point in panel.points})
        ticks = _spread_out(axes, sizes)
        texts = [format_value(METRICS[panel.x.key], size) for size in ticks]
        if len(sizes) == 1:
            axes.set_xlim(sizes[0] * 0.9, sizes[0] * 1.1)
        axes.set_xticks(ticks, texts)
        axes.xaxis.set_minor_locator(NullLocator())
    return axes


def draw_names(axes: Axes, panel: Panel, renderer: RendererBase) -> Axes:
    """Name every point, where nothing is covered."""
    scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    boxes = [box for line in panel.lines for box in _along(axes, line)]
    texts = []
    for point, shift in zip(panel.points, sideways(panel), strict=True):
        boxes += _marks(axes, point, shift, scale)
        x, y = _shifted(axes, shift).transform((point.x.mean, point.y.mean))
        texts.append((point.label, (float(x), float(y))))
    place_labels(axes, renderer, sorted(texts, key=lambda text: -text[1][1]), boxes)
    return axes


def _bars_meet(first: Point, second: Point) -> bool:
    return first.y.low <= second.y.high and second.y.low <= first.y.high


def _scale_to(axes: Axes, points: Sequence[Point]) -> None:
    """Limits from the data; artists moved sideways do not count for matplotlib's own."""
    corners = [(p.x.low, p.y.low) for p in points] + [(p.x.high, p.y.high) for p in points]
    axes.update_datalim([*corners, *((seed.x, seed.y) for p in points for seed in p.seeds)])
    axes.margins(0.16, 0.14)
    axes.autoscale_view()


def _settle_layout(figure: Figure) -> None:
    """Fix the layout. Tick texts depend on the size of the axes, so one pass is not enough."""
    for _ in range(2):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _shifted(axes: Axes, points: float) -> Transform:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def _along(axes: Axes, line: Sequence[Point]) -> list[Box]:
    """Small pixel boxes along a joined series."""
    ends = axes.transData.transform([(p.x.mean, p.y.mean) for p in line])
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(ends):
        for step in range(_BOXES_PER_SEGMENT + 1):
            t = step / _BOXES_PER_SEGMENT
            x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
            boxes.append(Box(x - 1.5, y - 1.5, x + 1.5, y + 1.5))
    return boxes


def _marks(axes: Axes, point: Point, shift: float, scale: float) -> list[Box]:
    """Pixel boxes of a mean, its two error bars and its seeds."""
    where = _shifted(axes, shift)

    def box(low: tuple[float, float], high: tuple[float, float], radius: float) -> Box:
        (x0, y0), (x1, y1) = where.transform([low, high])
        r = radius * scale
        return Box(x0 - r, y0 - r, x1 + r, y1 + r)

    x, y = point.x, point.y
    seeds = [box((s.x, s.y), (s.x, s.y), 2.0) for s in point.seeds]
    return [
        box((x.mean, y.mean), (x.mean, y.mean), 4.0),
        box((x.low, y.mean), (x.high, y.mean), 1.5),
        box((x.mean, y.low), (x.mean, y.high), 1.5),
        *seeds,
    ]


def _spread_out(axes: Axes, sizes: Sequence[float]) -> list[float]:
    """Sizes that can carry a tick text each; the smallest always does."""
    kept: list[float] = []
    to_axes = axes.transData + axes.transAxes.inverted()
    for size in sizes:
        if not kept:
            kept.append(size)
            continue
        left, right = (to_axes.transform((s, 0))[0] for s in (kept[-1], size))
        if right - left >= _MIN_TICK_GAP:
            kept.append(size)
    return kept


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]
