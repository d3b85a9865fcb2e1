"""A figure as data: charts of series of marks, each mark with its origins. Draws nothing.

Published numbers and runs both become this; `drawing.py` draws it, `writing.py` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.charts.style import CYCLE
from analysis.figures.points import Axis
from gigatok.names import METRICS

NO_VALUE = "no value"
"""Reading of a mark that has a place in the picture but no y: files leave it empty."""
Origin = Mapping[str, Any]
"""Where a number is from, ready for JSON: `id` and what leads to it."""

_LABELS = {
    "params_total": "tokenizer parameters (M)",
    "params_transformer": "transformer parameters (M)",
    "params_generator": "generator parameters (M)",
    "probe_accuracy": "probe acc. (%) ↑",
    "codebook_usage": "codebook usage (%) ↑",
    "perceptual_loss": "perceptual loss ↓",
    "decode_share": "time in decoder (%)",
    "step": "training step",
    "guidance/cfg_scale": "guidance scale",
    "guidance/gkid": "gKID while searching (x1000) ↓",
    "guidance/gfid": "gFID while searching ↓",
    "tokenizer.steps": "tokenizer training steps",
    "tokenizer.semantic_layer": "aligned decoder layer",
    "tokenizer.semantic_weight": "semantic weight",
    "tokenizer.teacher": "teacher",
    "tokenizer.entropy_weight": "entropy weight",
    "num_latent_tokens": "latent tokens",
}
_MILLIONS = "parameters"
"""Unit of what is drawn in millions."""
_PERCENT = {"probe_accuracy", "codebook_usage"}


@dataclass(frozen=True)
class Mark:
    """One point.

    Attributes:
        low: lower end of the interval of y; None without one. `high` likewise.
        label: printed beside it; "" for none.
        reading: `printed`, `digitised`, `secondary`, `run` or `NO_VALUE`.
    """

    x: float
    y: float
    origins: tuple[Origin, ...]
    reading: str
    label: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Marks that belong together.

    Attributes:
        joined: whether a line runs through them.
        arrows: whether the line points from each mark to the next.
    """

    name: str
    marks: tuple[Mark, ...]
    colour: str
    marker: str = "o"
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
    """One pair of axes.

    Attributes:
        ticks: places and texts of the x ticks; empty for matplotlib's choice.
        better_up: whether axes of which less is better run backwards: up and right are better.
        big: whether it takes four cells of the figure.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    log_x: bool = False
    log_y: bool = False
    better_up: bool = False
    big: bool = False
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Pictures of one kind, a column for each size: file contents as logged.

    Attributes:
        columns: head, origin and PNG bytes of each.
    """

    title: str
    columns: tuple[tuple[str, Origin, bytes], ...]


@dataclass(frozen=True)
class Plate:
    """A whole figure.

    Attributes:
        name: file stem.
        source: `published`, `runs` or `both`.
        notes: what a reader must know, printed below.
        missing: what belongs in it and is not there.
    """

    name: str
    title: str
    source: str
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]
    grids: tuple[Grid, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def readings(self) -> set[str]:
        """How its numbers were obtained."""
        return {m.reading for c in self.charts for s in c.series for m in s.marks}


def axis(key: str) -> Axis:
    """The axis of a metric or a config key, with its unit and which way is better."""
    if key in _LABELS:
        return Axis(key, _LABELS[key])
    if key not in METRICS:
        return Axis(key, key.removeprefix("train/").replace("_", " "))
    metric = METRICS[key]
    arrow = {"lower": " ↓", "higher": " ↑", None: ""}[metric.better]
    unit = "M" if metric.unit == _MILLIONS else metric.unit
    return Axis(key, metric.label + (f" ({unit})" if unit else "") + arrow)


def factor(key: str) -> float:
    """What a run's number is multiplied with to be on the axis: millions, percent."""
    metric = key.removeprefix("train/")
    if metric in _PERCENT:
        return 100.0
    return 1e-6 if key in METRICS and METRICS[key].unit == _MILLIONS else 1.0


def letters(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """The same charts with (a), (b), ... before their titles."""
    return tuple(
        replace(chart, title=f"({chr(97 + i)}) {chart.title}") for i, chart in enumerate(charts)
    )


def together(published: Plate, runs: Plate) -> Plate:
    """Both on the same axes: series of runs join the charts with the same two axes.

    A chart of runs without counterpart is added after the published ones.
    """
    own = {(chart.x.key, chart.y.key): chart for chart in runs.charts}
    merged = []
    for chart in published.charts:
        found = own.pop((chart.x.key, chart.y.key), None)
        merged.append(_merged(chart, found) if found else chart)
    notes = (*published.notes, *runs.notes, DIFFERENT)
    missing = (*published.missing, *runs.missing)
    return replace(
        published,
        source="both",
        charts=(*merged, *own.values()),
        notes=notes,
        missing=missing,
        grids=runs.grids,
    )


DIFFERENT = (
    "Runs (diamonds) and published numbers differ in data, size and protocol: compare shapes, "
    "not heights."
)


def _merged(chart: Chart, runs: Chart) -> Chart:
    ticks, found = _same_ticks(chart, runs)
    if not chart.big:
        found = tuple(
            replace(s, marks=tuple(replace(m, label="") for m in s.marks)) for s in found
        )
    series = (*chart.series, *_recoloured(found, {s.colour for s in chart.series}))
    marks = [mark for one in series for mark in one.marks]
    return replace(
        chart,
        series=series,
        ticks=ticks,
        log_x=chart.log_x or (not ticks and _spread([mark.x for mark in marks])),
        log_y=chart.log_y or _spread([mark.y for mark in marks]),
        remarks=(),
    )


def _recoloured(found: Sequence[Series], taken: set[str]) -> list[Series]:
    """The series of runs in colours that the published ones leave."""
    free = [colour for colour in CYCLE if colour not in taken]
    return [replace(s, colour=free[i % len(free)]) for i, s in enumerate(found)]


def _same_ticks(
    chart: Chart, runs: Chart
) -> tuple[tuple[tuple[float, str], ...], tuple[Series, ...]]:
    """The ticks of both and the series of runs at those places; names that agree share one."""
    if not runs.ticks:
        return (), runs.series
    places = {name: x for x, name in chart.ticks}
    for _, name in runs.ticks:
        places.setdefault(name, max(places.values(), default=-1.0) + 1)
    moved = {x: places[name] for x, name in runs.ticks}
    series = tuple(
        replace(s, marks=tuple(replace(m, x=moved[m.x]) for m in s.marks)) for s in runs.series
    )
    return tuple((x, name) for name, x in places.items()), series


_DECADE = 4
"""Values that span at least this factor are put on a logarithmic axis."""


def _spread(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= _DECADE * min(values)
