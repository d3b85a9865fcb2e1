"""What a figure will show, as data: panels of points with intervals. Draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.statistics.estimates import Estimate, Interval, Seed
from analysis.statistics.groups import Group, seed_of, short, show
from analysis.tables.results import protocol_marks
from gigatok.names import METRICS, PARAM_SEED

MIN_SIZES_FOR_LINE = 3
_LOG_RATIO = 10
"""A positive axis that spans at least this factor is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """One axis of a panel: a metric, or a config key that varies.

    Attributes:
        key: metric name or column.
        label: printed beside it.
        categories: tick texts at 0, 1, ... where the values are names; empty for numbers.
    """

    key: str
    label: str
    categories: tuple[str, ...] = ()

    @property
    def counts_parameters(self) -> bool:
        """Whether it is a model size."""
        return self.key in METRICS and METRICS[self.key].unit == "parameters"


@dataclass(frozen=True)
class SeedPoint:
    """One trial in a panel."""

    seed: Seed | None
    run_id: str
    x: float
    y: float


@dataclass(frozen=True)
class Point:
    """One setting in a panel: the mean of its seeds, and each of them.

    Attributes:
        series: all that identifies the setting but the tokenizer; points of one series may be
            joined.
        protocols: how x and y were measured.
    """

    label: str
    tokenizer: str
    regularised: bool
    series: str
    x: Estimate
    y: Estimate
    seeds: tuple[SeedPoint, ...]
    protocols: tuple[str, str]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        omitted: settings that cannot be shown, each with the reason.
        joined: whether x is something a curve can run over.
    """

    title: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    omitted: tuple[str, ...]
    joined: bool

    @property
    def lines(self) -> list[list[Point]]:
        """Points to join, by x; none of a series with fewer than three sizes.

        Nor of one without any replicate, where a line would draw a trend out of chance.
        """
        if not self.joined:
            return []
        series: dict[tuple[str, tuple[str, str]], list[Point]] = {}
        for point in self.points:
            series.setdefault((point.series, point.protocols), []).append(point)
        lines = [sorted(points, key=lambda p: p.x.mean) for points in series.values()]
        return [
            line
            for line in lines
            if len({p.x.mean for p in line}) >= MIN_SIZES_FOR_LINE
            and any(len(p.seeds) > 1 for p in line)
        ]

    @property
    def log_x(self) -> bool:
        """Whether x spans enough decades, all positive, for a logarithmic axis."""
        values = [point.x.mean for point in self.points]
        return (
            not self.x.categories and min(values) > 0 and max(values) >= _LOG_RATIO * min(values)
        )


def metric_axis(name: str) -> Axis:
    """The axis of a metric, its unit and which way is better."""
    metric = METRICS[name]
    arrow = {"lower": " ↓", "higher": " ↑", None: ""}[metric.better]
    unit = f" ({metric.unit})" if metric.unit and metric.unit != "parameters" else ""
    words = {"params_total": "tokenizer parameters", "params_decoder": "decoder parameters"}
    return Axis(name, words.get(name, metric.label) + unit + arrow)


def key_axis(found: Sequence[Group], column: str) -> Axis:
    """The axis of a config key: its numbers, or one tick per name in order of appearance."""
    values = list(dict.fromkeys(group.identity[column] for group in found))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return Axis(column, short(column))
    return Axis(column, short(column), tuple(show(value) for value in values))


def make_panel(
    found: Sequence[Group], title: str, x: Axis, y: str, *, interval: Interval, joined: bool
) -> Panel | None:
    """Gather the points of one panel; None where no setting has both coordinates."""
    points, omitted = [], []
    for group in found:
        point = _point(group, x, y, interval)
        if point is None:
            omitted.append(f"{group.label} ({_why(group, x, y)})")
        else:
            points.append(point)
    if not points:
        return None
    marked = _mark_protocols(points, found, x, y)
    return Panel(title, x, metric_axis(y), tuple(marked), tuple(omitted), joined)


def _point(group: Group, x: Axis, y: str, interval: Interval) -> Point | None:
    xs, ys = _values(group, x), group.values(y)
    rows = tuple(r for r in group.rows if {seed_of(r)} <= xs.keys() & ys.keys())
    shared = replace(group, rows=rows)
    x_estimate, y_estimate = _estimate(shared, x, interval), shared.estimate(y, interval)
    if x_estimate is None or y_estimate is None:
        return None
    seeds = tuple(_seed_point(row, xs, ys) for row in rows)
    series = " ".join(f"{short(k)}={show(v)}" for k, v in group.setting if k != x.key)
    x_protocol = _protocol(shared, x.key) if x.key in METRICS else ""
    return Point(
        group.label_without(x.key),
        group.tokenizer,
        group.regularised,
        series,
        x_estimate,
        y_estimate,
        seeds,
        (x_protocol, _protocol(shared, y)),
    )


def _seed_point(row: Any, xs: dict[Seed, float], ys: dict[Seed, float]) -> SeedPoint:
    seed = seed_of(row)
    return SeedPoint(row[PARAM_SEED], row["run_id"], xs[seed], ys[seed])


def _values(group: Group, axis: Axis) -> dict[Seed, float]:
    if axis.key in METRICS:
        return group.values(axis.key)
    value = group.identity[axis.key]
    position = float(axis.categories.index(show(value)) if axis.categories else value)
    return {seed_of(row): position for row in group.rows}


def _estimate(group: Group, axis: Axis, interval: Interval) -> Estimate | None:
    if axis.key in METRICS:
        return group.estimate(axis.key, interval)
    values = list(_values(group, axis).values())
    return Estimate(values[0], values[0], values[0], len(values), "none") if values else None


def _protocol(group: Group, metric: str) -> str:
    (protocol,) = group.protocols(metric)
    return protocol


def _why(group: Group, x: Axis, y: str) -> str:
    names = [key for key in (x.key, y) if key in METRICS]
    absent = [METRICS[name].label for name in names if not group.values(name)]
    if absent:
        return "no " + ", ".join(absent)
    mixed = [METRICS[name].label for name in names if len(group.protocols(name)) > 1]
    return f"{', '.join(mixed)} measured in two ways" if mixed else "no seed has both"


def _mark_protocols(
    points: Sequence[Point], found: Sequence[Group], x: Axis, y: str
) -> list[Point]:
    """Append the table's protocol marks to labels where a panel would mix two protocols."""
    marks_x = protocol_marks(found, x.key) if x.key in METRICS else {}
    marks_y = protocol_marks(found, y)
    marked = []
    for point in points:
        marks = {marks_x.get(point.protocols[0], ""), marks_y[point.protocols[1]]} - {""}
        suffix = "".join(f" [{mark}]" for mark in sorted(marks))
        marked.append(replace(point, label=point.label + suffix))
    return marked
