"""The rate-distortion planes of a sweep, with the front of each family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.charts import style
from analysis.charts.grammar import (
    Chart,
    FigureData,
    Mark,
    Series,
    axis,
    bar_of,
    with_distinct_looks,
)
from analysis.charts.style import Look
from analysis.figures.parts.derived import pareto_front
from analysis.statistics.rate_distortion import RATE, Front, RatePoint
from analysis.store.runs import origin
from gigatok.names import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plane_chart(found: Sequence[Front], metric: str) -> Chart:
    """Draw the settings of each family and its front, a dashed line."""
    series = []
    # A family without a point would be a name in the legend and nothing else.
    shown = [front for front in found if front.points]
    # One tokenizer for all is no name of a mark.
    named = len({point.group.tokenizer for front in shown for point in front.points}) > 1
    for rank, front in enumerate(shown):
        marks = tuple(_mark(point, metric, named=named) for point in front.points)
        name = front.family if front.setting else "all settings"
        name += "" if len(marks) > 1 else " (one setting)"
        look = _look(front, rank, len(shown))
        series.append(Series(name, marks, look, joined=False))
    label = METRICS[metric].label
    (chart,) = with_distinct_looks([Chart(label, axis(RATE), axis(metric), tuple(series))])
    better = METRICS[metric].better
    # A front of its own for each family: a common one would hide the smaller one's shape.
    lines = [
        pareto_front([one], None, better, f"front of {one.name}", one.look._replace(marker=""))
        for one in chart.series
        if len(one.marks) > 1
    ]
    return Chart(chart.title, chart.x, chart.y, (*chart.series, *lines), better_up=True)


def planes_figure(name: str, planes: Mapping[str, Sequence[Front]]) -> FigureData | None:
    """Make the planes that have at least two settings; None without any.

    Args:
        name: file stem.
        planes: the fronts of each distortion.
    """
    drawn = {m: f for m, f in planes.items() if sum(len(front.points) for front in f) > 1}
    charts = tuple(plane_chart(found, metric) for metric, found in drawn.items())
    title = "Rate and distortion; dashed lines join what no other setting of the family beats"
    # No figure instead of an empty one: reports leave the picture out.
    return FigureData(name, title, "runs", charts) if charts else None


def plot_rate_distortion(axes: Axes, found: Sequence[Front], metric: str = "psnr") -> Axes:
    """Draw one plane into given axes, with a legend."""
    from analysis.charts.drawing import draw_chart
    from analysis.charts.legend import handles

    chart = plane_chart(found, metric)
    draw_chart(axes, chart)
    axes.legend(handles=handles([chart]), frameon=False, fontsize=7)
    return axes


def _look(front: Front, rank: int, count: int) -> Look:
    """Choose the look of a family: its own, else one that differs in colour and shape."""
    if front.setting is None:
        return style.WITH if front.points[0].group.regularised else style.WITHOUT
    own = style.of_setting(*front.setting)
    return own or style.of_rank(rank, count, is_ordered=False)


def _mark(point: RatePoint, metric: str, *, named: bool) -> Mark:
    origins = tuple(origin(row, [RATE, metric]) for row in point.group.rows)
    bars = bar_of(point.rate, 1.0), bar_of(point.distortion, 1.0)  # both printed as stored
    at = (point.rate.mean, point.distortion.mean)
    label = point.group.tokenizer if named else ""
    return Mark(*at, origins, "run", label, *bars, seeds=point.seeds)
