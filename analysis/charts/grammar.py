"""A figure as data: charts of series of marks, each mark with its intervals and origins.

Published numbers and runs both become this. `drawing.py` draws it with Matplotlib, the dashboards
with Plotly, `records.py` writes it as CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from analysis.charts.style import CYCLE, Look
from analysis.statistics.estimates import SeedEstimate
from gigatok.names import Metric, quantity

Reading = Literal["printed", "digitised", "secondary", "run", "fit", "front", "no value"]
"""Ways to obtain a number. `fit` and `front` are derived from other marks. A mark of `no value`
has a place in the picture but no y: files leave it empty."""
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

    def is_log(self, values: Iterable[float]) -> bool:
        """Tell whether these values are drawn on a logarithmic axis: the metric's own rule."""
        found = list(values)
        if not found or min(found) <= 0:  # names begin at 0, so an axis of names is never one
            return False
        return max(found) >= self.metric.log_from * min(found)


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
    """

    name: str
    marks: tuple[Mark, ...]
    look: Look
    joined: bool = True
    dashed: bool = False
    arrows: bool = False


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
    """

    title: str
    x: ChartAxis
    y: ChartAxis
    series: tuple[Series, ...]
    better_up: bool = False
    big: bool = False
    remarks: tuple[Remark, ...] = ()

    @property
    def marks(self) -> list[Mark]:
        """Marks of all series."""
        return [mark for series in self.series for mark in series.marks]

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
    def log_x(self) -> bool:
        """Tell whether x is logarithmic."""
        return self.x.is_log(mark.x for mark in self.marks)

    @property
    def log_y(self) -> bool:
        """Tell whether y is logarithmic; intervals must be positive as well."""
        # An interval that reaches zero has no place on a logarithmic axis.
        lows = [mark.y_bar.low for mark in self.marks if mark.y_bar is not None]
        return self.y.is_log(mark.y for mark in self.marks) and min(lows, default=1.0) > 0


@dataclass(frozen=True)
class Grid:
    """Pictures of one kind, a column for each size: file contents as logged.

    Attributes:
        columns: head, origin and PNG bytes of each.
    """

    title: str
    columns: tuple[tuple[str, Origin, bytes], ...]


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


def with_distinct_looks(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Give series that would look alike different colours, the same in all charts of a figure.

    A setting keeps the look of its own (`style.py`); only further settings that share it, such as
    a second weight of the regularisation, take the next colour that is free.
    """
    # By name, not by chart: a series has one look in all charts and one handle in the legend.
    looks: dict[str, Look] = {}
    # In the order of the charts, so that the first series of a look keeps it.
    for name, look in ((s.name, s.look) for chart in charts for s in chart.series):
        if name not in looks:
            looks[name] = _free(look, looks.values())
    return tuple(
        replace(chart, series=tuple(replace(s, look=looks[s.name]) for s in chart.series))
        for chart in charts
    )


def _free(look: Look, taken: Iterable[Look]) -> Look:
    # Colours that no series has come first; then colour and marker pairs. With more series than
    # those the look repeats, and only the legend's words tell them apart.
    used = set(taken)
    if look not in used or not look.marker:  # without marker: a line that stands for its series
        return look
    colours = {one.colour for one in used}
    fresh = [Look(colour, look.marker) for colour in CYCLE if colour not in colours]
    others = (Look(colour, marker) for marker in "osD^vP" for colour in CYCLE)
    return next((one for one in (*fresh, *others) if one not in used), look)


def together(published: FigureData, runs: FigureData) -> FigureData:
    """Put both on the same axes: series of runs join the charts with the same two axes.

    A chart of runs without counterpart is added after the published ones.
    """
    # Charts match by what they show, not by title: paper and runs word it differently.
    own = {(chart.x.key, chart.y.key): _of_runs(chart) for chart in runs.charts}
    merged = []
    for chart in published.charts:
        found = own.pop((chart.x.key, chart.y.key), None)
        merged.append(_merged(chart, found) if found else chart)
    return replace(
        published,
        source="both",
        charts=(*merged, *own.values()),
        notes=(*published.notes, *runs.notes, DIFFERENT),
        missing=(*published.missing, *runs.missing),
        grids=runs.grids,
    )


DIFFERENT = (
    "Runs (marks with a black rim) and published numbers differ in data, size and protocol: "
    "compare shapes, not heights."
)


def _merged(chart: Chart, runs: Chart) -> Chart:
    ticks, found = _same_ticks(chart.x, runs)
    if not chart.big:  # small charts have no room for the names of both
        found = [replace(s, marks=tuple(replace(m, label="") for m in s.marks)) for s in found]
    # Remarks go as well: their places were chosen for the published numbers alone.
    x = replace(chart.x, ticks=ticks)
    return replace(chart, x=x, series=(*chart.series, *found), remarks=())


def _of_runs(chart: Chart) -> Chart:
    """Say in the names of a chart's series that they are runs."""
    names = {s.name: s.name if s.name == "runs" else f"runs: {s.name}" for s in chart.series}
    return replace(chart, series=tuple(replace(s, name=names[s.name]) for s in chart.series))


def _same_ticks(x: ChartAxis, runs: Chart) -> tuple[Ticks, list[Series]]:
    """Find ticks for both, and move the series of runs there; names that agree share a place."""
    if not runs.x.ticks:
        return (), list(runs.series)
    # A name of both, such as a teacher, keeps the paper's place; others follow behind.
    places = {name: at for at, name in x.ticks}
    for _, name in runs.x.ticks:
        places.setdefault(name, max(places.values(), default=-1.0) + 1)
    moved = {at: places[name] for at, name in runs.x.ticks}
    series = [
        replace(s, marks=tuple(replace(m, x=moved[m.x]) for m in s.marks)) for s in runs.series
    ]
    return tuple((at, name) for name, at in places.items()), series
