"""A figure as data: charts of series of marks, each mark with its intervals and origins.

Published numbers and runs both become this. `drawing.py` draws it with Matplotlib, the dashboards
with Vega-Lite, `records.py` writes it as CSV and JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from math import frexp
from typing import Any, Literal

from analysis.charts.style import CYCLE, MARKERS, Look
from analysis.statistics.estimates import SeedEstimate
from gigatok.names import METRICS, NEVER_LOG, PARAMETERS, Metric, quantity

Reading = Literal["printed", "digitised", "secondary", "run", "fit", "front", "no value"]
"""Ways to obtain a number. `fit` and `front` are derived from other marks. A mark of `no value`
has a place in the picture but no y: files leave it empty."""
MOST_SIZES = 6
"""Model sizes, or values of a setting, up to which each can have a tick of its own."""
_DODGE, WIDEST_DODGE = 5.0, 24.0
"""Points of print between marks whose intervals would cover each other, and over all of them."""
_SAME_SIZE = 1.04
"""Ratio of two sizes up to which one tick stands for both."""
DERIVED: frozenset[Reading] = frozenset({"fit", "front"})
HOLLOW: frozenset[Reading] = frozenset({"digitised", "secondary"})
"""Drawn hollow: less reliable than what is printed."""
Source = Literal["published", "runs", "both"]
Origin = Mapping[str, Any]
"""Provenance of a number, ready for JSON: `id` and what leads to it."""
Place = tuple[float, float]
"""x and y in the units of the axes."""
Ticks = tuple[tuple[float, str], ...]
"""Places and texts."""
_WAYS = re.compile(r"( \[\w+\])+$")
_MIN_POWERS = 3
"""Fewer powers of two may be numbers of any other kind, such as 1 and 2."""


@dataclass(frozen=True)
class ChartAxis:
    """Axis of a chart.

    Attributes:
        key: metric, logged name or config key; decides unit, direction and scale.
        label: printed beside it.
        ticks: where the figure chooses them; names stand at 0, 1, ...
    """

    key: str
    label: str
    ticks: Ticks = ()

    @property
    def metric(self) -> Metric:
        """Definition of what the axis shows."""
        return quantity(self.key)

    @property
    def bounds(self) -> Place | None:
        """Ends that the axis must not pass, in printed units: those of a share."""
        metric = self.metric
        whole = 100.0 if "%" in (metric.unit, metric.printed_unit) else 1.0
        return (0.0, whole) if metric.share else None

    def is_log(self, values: Iterable[float]) -> bool:
        """Tell whether these values are drawn on a logarithmic axis: the metric's own rule."""
        found = list(values)
        if not found or min(found) <= 0:  # names begin at 0, so an axis of names is never one
            return False
        is_wide = max(found) >= self.metric.log_from * min(found)
        return is_wide or bool(self.powers(found))

    def powers(self, values: Iterable[float]) -> list[float]:
        """List the values where all are powers of two and no others: they are their own ticks.

        Nothing for fewer than three, and where the metric has no logarithmic axis.
        """
        found = sorted(set(values))
        # `frexp` splits a number into a part from .5 to 1 and a power of two.
        is_doubled = all(value > 0 and frexp(value)[0] == 0.5 for value in found)
        enough = len(found) >= _MIN_POWERS and self.metric.log_from != NEVER_LOG
        return found if is_doubled and enough and not self.ticks else []

    def settings(self, values: Iterable[float]) -> list[float]:
        """List the values of a setting, where they are few: it is they that one looks for.

        Of results any number will do as a tick.
        """
        found = sorted(set(values))
        is_few = self.key not in METRICS and len(found) <= MOST_SIZES
        return found if is_few and not self.ticks else []


@dataclass(frozen=True)
class Bar:
    """Interval of one coordinate of a mark; `kind` is a key of `estimates.INTERVALS`."""

    low: float
    high: float
    kind: str


def bar_of(found: SeedEstimate, factor: float) -> Bar | None:
    """Draw the interval of an estimate, in printed units; None where it has none."""
    if found.interval == "none":
        return None
    return Bar(found.low * factor, found.high * factor, found.interval)


@dataclass(frozen=True)
class Mark:
    """Point of a chart, in the units of the axes.

    Attributes:
        label: printed beside it; "" for none.
        x_bar: interval of x; None without one. `y_bar` likewise.
        seeds: x and y of each trial whose mean the mark is, in the order of `origins`.
    """

    x: float
    y: float
    origins: tuple[Origin, ...]
    reading: Reading
    label: str = ""
    x_bar: Bar | None = None
    y_bar: Bar | None = None
    seeds: tuple[Place, ...] = ()

    @property
    def intervals(self) -> list[tuple[Place, Place]]:
        """Ends of its intervals in the chart."""
        across = [((b.low, self.y), (b.high, self.y)) for b in [self.x_bar] if b]
        return across + [((self.x, b.low), (self.x, b.high)) for b in [self.y_bar] if b]


@dataclass(frozen=True)
class Series:
    """Marks that belong together, in the order in which a line joins them: by size, never by x.

    Attributes:
        joined: whether a line runs through them.
        arrows: whether the line points from each mark to the next.
        banded: whether the intervals of y are one band along the line, as of a training curve.
    """

    name: str
    marks: tuple[Mark, ...]
    look: Look
    joined: bool = True
    dashed: bool = False
    arrows: bool = False
    banded: bool = False

    @property
    def is_derived(self) -> bool:
        """Tell whether it follows from the marks of others."""
        return bool(self.marks) and all(mark.reading in DERIVED for mark in self.marks)


@dataclass(frozen=True)
class Remark:
    """Words inside a chart, at data coordinates."""

    x: float
    y: float
    text: str
    colour: str = "#444444"


@dataclass(frozen=True)
class Chart:
    """Pair of axes and what is drawn in it.

    Attributes:
        better_up: whether axes of which less is better run backwards: up and right are better.
        big: whether it takes four cells of the figure.
        reach: places that its axes must reach as well: marks of the panels beside it.
    """

    title: str
    x: ChartAxis
    y: ChartAxis
    series: tuple[Series, ...]
    better_up: bool = False
    big: bool = False
    remarks: tuple[Remark, ...] = ()
    reach: tuple[Place, ...] = ()

    @property
    def marks(self) -> list[Mark]:
        """Marks of all series."""
        return [mark for series in self.series for mark in series.marks]

    @property
    def namesakes(self) -> list[list[Mark]]:
        """Group marks of one name at one x, the highest first: the name stands there if it can."""
        found: dict[tuple[str, float], list[Mark]] = {}
        for mark in sorted(self.marks, key=lambda mark: mark.y, reverse=not self.turns(self.y)):
            if mark.label:
                found.setdefault((mark.label, mark.x), []).append(mark)
        return list(found.values())

    def turns(self, axis: ChartAxis) -> bool:
        """Tell whether one of its axes runs backwards."""
        return self.better_up and axis.metric.better == "lower"

    @property
    def x_label(self) -> str:
        """Words beside x; "better →" instead of an arrow where all of better is up and right."""
        return self._label(self.x)

    @property
    def y_label(self) -> str:
        """Words beside y."""
        return self._label(self.y)

    def _label(self, axis: ChartAxis) -> str:
        # Where axes run backwards, "lower is better" beside an arrow that points up would mislead.
        plain = not self.better_up or axis.metric.better is None
        return axis.label if plain else f"{axis.label.rstrip(' ↓↑')}, better →"

    @property
    def xs(self) -> list[float]:
        """List the values on x, those of the panels beside it included."""
        return [mark.x for mark in self.marks] + [x for x, _ in self.reach]

    @property
    def log_x(self) -> bool:
        """Tell whether x is logarithmic; intervals must be positive as well."""
        lows = [mark.x_bar.low for mark in self.marks if mark.x_bar is not None]
        return self.x.is_log(self.xs) and min(lows, default=1.0) > 0

    @property
    def log_y(self) -> bool:
        """Tell whether y is logarithmic; intervals must be positive as well."""
        # An interval that reaches zero has no place on a logarithmic axis.
        lows = [mark.y_bar.low for mark in self.marks if mark.y_bar is not None]
        ys = [mark.y for mark in self.marks] + [y for _, y in self.reach]
        return self.y.is_log(ys) and min(lows, default=1.0) > 0

    @property
    def size_ticks(self) -> list[tuple[float, str]]:
        """List model sizes on x with their texts; none where x is no size, or they are many."""
        if self.x.ticks or self.x.metric.unit != PARAMETERS:
            return []
        measured = {mark.x for mark in self.marks if mark.reading not in DERIVED}
        sizes = [x for x in sorted({x for x in self.xs if x > 0}) if x in measured or self.reach]
        # Two builds of one size, such as 340 and 343 M, share a tick.
        sizes = sizes[:1] + [b for a, b in pairwise(sizes) if b > a * _SAME_SIZE]
        # `text` takes a stored value, and the marks are in printed units already (millions).
        texts = (self.x.metric.text(size / self.x.metric.factor) for size in sizes)
        return list(zip(sizes, texts, strict=True)) if len(sizes) <= MOST_SIZES else []

    @property
    def is_agreement(self) -> bool:
        """Tell whether both axes are one quantity, so that y = x says where they agree."""
        return self.x.key == self.y.key


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
    step = min(_DODGE, WIDEST_DODGE / max(len(near) - 1, 1))
    return float(place - (len(near) - 1) / 2) * step


@dataclass(frozen=True)
class Grid:
    """Pictures of one kind, a column for each size: file contents as logged.

    Attributes:
        columns: head, origin and PNG bytes of each.
        room: pictures that its row has room for; 0: as many as it has.
    """

    title: str
    columns: tuple[tuple[str, Origin, bytes], ...]
    room: int = 0


@dataclass(frozen=True)
class FigureData:
    """A whole figure.

    Attributes:
        name: file stem.
        notes: what a reader must know, printed below.
        missing: what belongs in it and is not there.
    """

    name: str
    title: str
    source: Source
    charts: tuple[Chart, ...]
    notes: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def readings(self) -> set[Reading]:
        """Collect how its numbers were obtained."""
        return {mark.reading for chart in self.charts for mark in chart.marks}


TITLES = {
    "rfid": "Reconstruction",
    "gfid": "Generation",
    "ar_val_loss": "Code complexity",
    "probe_accuracy": "AR representation",
    "lpips": "Perceptual distance",
}
"""Titles of charts by their metric, the same over published numbers and runs."""


def axis(key: str, label: str = "", ticks: Ticks = ()) -> ChartAxis:
    """Make the axis of a metric or a config key: its heading, unless a figure has other words."""
    return ChartAxis(key, label or quantity(key).heading, ticks)


def letter(index: int) -> str:
    """Name the panel of a figure that has several: `(a)`, `(b)`, ..."""
    return f"({chr(97 + index)})"


def side_by_side(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Let charts with the same two axes reach the same places, so that they compare by eye."""
    places: dict[tuple[str, str], list[Place]] = {}
    for chart in charts:
        corners = [(m.x, m.y) for m in chart.marks]
        corners += [place for m in chart.marks for ends in m.intervals for place in ends]
        places.setdefault((chart.x.key, chart.y.key), []).extend(corners)
    return tuple(replace(c, reach=tuple(places[c.x.key, c.y.key])) for c in charts)


def without_way(name: str) -> str:
    """Drop the mark of the way of measuring from the name of a series: `S-S [a]` -> `S-S`."""
    return _WAYS.sub("", name)


def with_distinct_looks(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Give series that would look alike different colours, the same in all charts of a figure.

    A setting keeps the look of its own (`style.py`); only further settings that share it, such as
    a second weight of the regularisation, take the next colour that is free.
    """
    # By name, not by chart: a series has one look in all charts and one handle in the legend.
    looks: dict[str, Look] = {}
    beside = [{s.name for s in chart.series} for chart in charts]
    # Colours of looks of their own, those of later series too, are not free for others.
    own = {s.look.colour for chart in charts for s in chart.series}
    # In the order of the charts, so that the first series of a look keeps it.
    for name, look in ((s.name, s.look) for chart in charts for s in chart.series):
        if name not in looks:
            # A setting looks the same in charts of what was measured in one way and in several;
            # only side by side do its ways need to be told apart.
            rivals = {other for names in beside if name in names for other in names}
            same = {n for n in looks if without_way(n) == without_way(name)} - rivals
            looks[name] = _free(look, [looks[n] for n in looks if n not in same], own)
    return tuple(
        replace(chart, series=tuple(replace(s, look=looks[s.name]) for s in chart.series))
        for chart in charts
    )


def _free(look: Look, taken: Iterable[Look], own: Set[str]) -> Look:
    # Colours that no series has come first; then colour and marker pairs. With more series than
    # those the look repeats, and only the legend's words tell them apart.
    used = set(taken)
    if look not in used or not look.marker:  # without marker: a line that stands for its series
        return look
    colours = own | {one.colour for one in used}
    fresh = [Look(colour, look.marker) for colour in CYCLE if colour not in colours]
    others = (Look(colour, marker) for marker in MARKERS for colour in CYCLE)
    return next((one for one in (*fresh, *others) if one not in used), look)


def together(published: FigureData, runs: FigureData) -> FigureData:
    """Put charts of the same two axes side by side: the paper's, then that of the runs.

    A pair has two panels, as numbers of networks of another size and another protocol would
    shrink each other to specks on one axis. Charts without counterpart come last.
    """
    # Charts match by what they show, not by title: paper and runs word it differently.
    own = {(chart.x.key, chart.y.key): chart for chart in runs.charts}
    charts: list[Chart] = []
    alone: list[Chart] = []
    for chart in published.charts:
        found = own.pop((chart.x.key, chart.y.key), None)
        if found is None:
            alone.append(_neutral(chart, "published"))
        else:
            charts += [_neutral(chart, "published"), _neutral(found, "runs")]
    rest = (_neutral(chart, "runs") for chart in own.values())
    return replace(
        published,
        # The paper's title claims what a few runs may not show; that of the runs asks.
        title=runs.title,
        source="both",
        charts=(*charts, *alone, *rest),
        notes=(*published.notes, *runs.notes, DIFFERENT),
        missing=(*published.missing, *runs.missing),
        grids=runs.grids,
    )


DIFFERENT = (
    "Runs (marks with a black rim) and published numbers differ in data, size and protocol: "
    "compare shapes, not heights."
)


def _neutral(chart: Chart, source: Source) -> Chart:
    """Title a chart by its source; remarks go, as they say what the paper found."""
    if source == "published":
        return replace(chart, title="paper", remarks=(), big=False)
    # Series of both may have one name, and stand in one legend.
    names = {s.name: s.name if s.name == "runs" else f"runs: {s.name}" for s in chart.series}
    series = tuple(replace(s, name=names[s.name]) for s in chart.series)
    return replace(chart, title="runs", series=series, remarks=(), big=False)
