"""Any result against any other or against a setting, with published numbers, fronts and fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from analysis.charts.grammar import DIFFERENT, Chart, Mark, Origin, Plate, Series, axis, factor
from analysis.charts.style import CYCLE, OTHER
from analysis.figures import published_marks
from analysis.figures.published_marks import short
from analysis.figures.runs import mark_notes, settings_series
from analysis.paper.published import PAPER, Fact, facts
from analysis.statistics.fits import MIN_SIZES, Law, fit_power_law
from analysis.statistics.groups import groups
from analysis.statistics.pareto import pareto_front
from analysis.store.runs import PROTOCOL, measured, params_of
from analysis.store.stores import RequestError
from gigatok.names import METRICS, PARAM_SEED, PARAM_TOKENIZER

MOST_GROUPED = 2000
"""Trials above which each is a point of its own: means over seeds take seconds then."""
_CURVE_POINTS = 60
_PROBE = "AR Probe"
"""Begins the generator's name of the paper's numbers that are made as trials are."""
_PLACES = ("Figure 3", "Figure 7", "Figure 9", "Table 2")
"""Where the paper has them for tokenizers of several sizes."""
_CONFOUNDS = (1, 2, 5, 6, 9, 12)
"""Numbers of the notes on them."""
_FIT, _FRONT = "fit", "front"

Fitting = Law | Literal["none"]

PRESETS: dict[str, tuple[str, str]] = {
    "Reconstruction or generation": ("rkid|rfid", "gkid|gfid"),
    "Latent complexity": ("params_total", "ar_val_loss"),
    "Rate and distortion (Pareto)": ("ar_bits_per_image", "psnr"),
    "Size and reconstruction": ("params_total", "rkid|rfid"),
    "Size and generation": ("params_total", "gkid|gfid"),
}
"""Question -> x and y; of `a|b` the first one that was measured."""


@dataclass(frozen=True)
class Scaling:
    """A chart with what belongs below it.

    Attributes:
        sentences: each fit in words, or why there is none.
        notes: intervals and protocols of the marks, and what is not shown.
        marks: the chart as a table: one row per mark.
    """

    chart: Chart
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    marks: pl.DataFrame

    def plate(self, source: str = "runs") -> Plate:
        """For `drawing.draw`: the chart alone, its notes below."""
        chart = replace(self.chart, series=tuple(s for s in self.chart.series if s.marks))
        return Plate("scaling", chart.title, source, (chart,), (*self.sentences, *self.notes))


def choices(runs: pl.DataFrame) -> list[str]:
    """What may be an axis: results that some trial has, then numeric settings that vary."""
    numeric = [c for c in params_of(runs) if runs[c].dtype.is_numeric() and c != PARAM_SEED]
    return [*measured(runs), *(c for c in numeric if runs[c].drop_nulls().n_unique() > 1)]


def preset(name: str, runs: pl.DataFrame, *, beside_paper: bool = False) -> tuple[str, str] | None:
    """The axes of a preset; None where its results were not measured.

    KID comes before FID, of which few images make a bias, but where FID is wanted beside the
    paper's.
    """
    have = measured(runs)
    wanted = [options.split("|")[:: -1 if beside_paper else 1] for options in PRESETS[name]]
    found = [next((key for key in options if key in have), "") for options in wanted]
    return (found[0], found[1]) if all(found) else None


def scaling(
    runs: pl.DataFrame,
    x: str,
    y: str,
    *,
    published: bool = False,
    law: Fitting = "none",
    front: bool = False,
) -> Scaling:
    """Draw y over x.

    Args:
        runs: trials of one study or several.
        x: a metric or a numeric param.
        y: a metric.
        published: the paper's numbers as well, where it has both.
        law: fitted to each series over its values of x.
        front: the settings that no other beats in both.

    Raises:
        RequestError: no trial has both.
    """
    own, notes = _own(runs, x, y)
    if not own:
        raise RequestError(f"no trial has both {axis(x).label} and {axis(y).label}")
    mixed = _mixed(runs, x, y)
    notes += mixed
    fits, sentences = ([], []) if mixed else _fits(own, runs, x, y, law)
    best = [_front(own, x, y)] if front and not mixed else []
    paper = published_series(x, y) if published else []
    if published:
        none = f"The paper has no {axis(y).label} with its {axis(x).label}."
        notes += [*short(*_CONFOUNDS), DIFFERENT] if paper else [none]
    series = (*own, *best, *fits, *paper)
    marks = [mark for s in series for mark in s.marks]
    sizes = axis(x).counts_parameters and min(mark.x for mark in marks) > 0
    title = f"{axis(y).label.removesuffix(' ↓').removesuffix(' ↑')} over {axis(x).label}"
    log_x, log_y = (_wide([mark.x for mark in marks]), _wide([mark.y for mark in marks]))
    chart = Chart(title.strip(" ↓↑"), axis(x), axis(y), series, log_x=sizes or log_x, log_y=log_y)
    return Scaling(chart, tuple(sentences), tuple(notes), table_of(chart))


def _wide(values: Sequence[float]) -> bool:
    """Whether values span so much that only a logarithmic axis tells the small ones apart."""
    return min(values) > 0 and max(values) > 10 * min(values)


def published_series(x: str, y: str) -> list[Series]:
    """The paper's numbers of its AR probes that have both: a series for each place and setting."""
    rows: dict[tuple[object, ...], dict[str, Fact]] = {}
    for fact in facts():
        probed = fact.generator == "" or fact.generator.startswith(_PROBE)
        if fact.work == PAPER and fact.place in _PLACES and fact.metric in (x, y) and probed:
            key = (fact.place, fact.tokenizer, fact.variant, fact.semantic, fact.setting)
            rows.setdefault(key, {}).setdefault(fact.metric, fact)
    named: dict[str, list[Mark]] = {}
    for (place, _, variant, semantic, _), row in rows.items():
        mark = _published_mark(row, x, y)
        if mark is not None:
            words = ["paper", str(place), str(variant).upper()] + (["+reg"] if semantic else [])
            named.setdefault(" ".join(filter(None, words)), []).append(mark)
    return [
        Series(name, tuple(marks), OTHER, marker, joined=False)
        for (name, marks), marker in zip(named.items(), "os^vD" * len(named), strict=False)
    ]


def table_of(chart: Chart) -> pl.DataFrame:
    """The marks of a chart, one row each: `series`, `label`, x, y, interval, reading, origin."""
    rows = [
        (
            series.name,
            mark.label,
            mark.x,
            mark.y,
            mark.low,
            mark.high,
            mark.reading,
            " ".join(str(o["id"]) for o in mark.origins),
        )
        for series in chart.series
        for mark in series.marks
        if mark.reading not in (_FIT, _FRONT)
    ]
    x, y = (chart.x.label, chart.y.label + (" " if chart.x.label == chart.y.label else ""))
    columns = ["series", "label", x, y, "low", "high", "reading", "origin"]
    kinds = [pl.String(), pl.String(), *(pl.Float64(),) * 4, pl.String(), pl.String()]
    return pl.DataFrame(rows, dict(zip(columns, kinds, strict=True)), orient="row")


def _front(own: Sequence[Series], x: str, y: str) -> Series:
    better_x, better_y = (METRICS[key].better if key in METRICS else None for key in (x, y))
    line = pareto_front(own, better_x, better_y)
    return replace(line, marks=tuple(replace(mark, reading=_FRONT) for mark in line.marks))


def _mixed(runs: pl.DataFrame, x: str, y: str) -> list[str]:
    """Why nothing may run through all marks: an axis was measured in several ways."""
    both = runs.filter(pl.col(x).is_not_null() & pl.col(y).is_not_null())
    ways = {key: both[PROTOCOL + key].n_unique() for key in (x, y) if key in METRICS}
    return [
        f"{METRICS[key].label} was measured in {count} ways: no fit and no front mix them."
        for key, count in ways.items()
        if count > 1
    ]


def _own(runs: pl.DataFrame, x: str, y: str) -> tuple[list[Series], list[str]]:
    """The series of trials, and what to know about them."""
    if runs.height > MOST_GROUPED:
        note = f"Each point is one of {runs.height:,} trials; seeds are not averaged."
        return _single(runs, x, y), [note]
    made: list[Series] = []
    notes: list[str] = []
    for (sweep, *_), part in runs.partition_by(
        "sweep", "scale", "plan", as_dict=True, maintain_order=True
    ).items():
        found = groups(part)
        several = runs["plan"].n_unique() > 1
        for series in settings_series(found, x, y)[0]:
            name = series.name.removeprefix("runs").strip() or "trials"
            name = f"{sweep} {part['scale'][0]}: {name}" if several else name
            made.append(replace(series, name=name, colour=CYCLE[len(made) % len(CYCLE)]))
        notes += mark_notes(found, part, [key for key in (x, y) if key in METRICS])
    return made, list(dict.fromkeys(notes))


def _single(runs: pl.DataFrame, x: str, y: str) -> list[Series]:
    """Every trial is a mark; a series for each tokenizer."""
    finite = runs.select(
        "run_id", "trial", PARAM_TOKENIZER, x=pl.col(x) * factor(x), y=pl.col(y) * factor(y)
    ).filter(pl.col("x").is_finite() & pl.col("y").is_finite())
    made: list[Series] = []
    for (name,), part in finite.partition_by(
        PARAM_TOKENIZER, as_dict=True, maintain_order=True
    ).items():
        marks = tuple(
            Mark(across, up, ({"id": run, "run_id": run, "trial": trial},), "run")
            for run, trial, _, across, up in part.iter_rows()
        )
        made.append(Series(str(name), marks, CYCLE[len(made) % len(CYCLE)], "o", joined=False))
    return made


def _fits(
    own: Sequence[Series], runs: pl.DataFrame, x: str, y: str, law: Fitting
) -> tuple[list[Series], list[str]]:
    """A curve for each series that a law can be fitted to, and all of it in words."""
    if law == "none":
        return [], []
    shown = runs.select("run_id", pl.col(x) * factor(x), pl.col(y) * factor(y))
    values = {row[0]: (row[1], row[2]) for row in shown.iter_rows()}
    made, said = [], []
    for series in own:
        ids = [o["id"] for mark in series.marks for o in mark.origins]
        pairs = [values[i] for i in ids if None not in values[i]]
        try:
            fit = fit_power_law([a for a, _ in pairs], [b for _, b in pairs], law=law)
        except RequestError as error:
            said.append(f"{series.name}: no fit, {error}.")
            continue
        along = np.geomspace(fit.sizes[0], fit.sizes[-1], _CURVE_POINTS)
        curve = zip(along, fit.predict(along), strict=True)
        marks = [Mark(float(a), float(b), (), _FIT) for a, b in curve]
        made.append(Series(f"fit of {series.name}", tuple(marks), series.colour, "", dashed=True))
        said.append(f"{series.name}: {fit.sentence}")
    few = f"A fit needs {MIN_SIZES[law]} different values of {axis(x).label}."
    return made, [*said, "x and y are in the units of the axes." if made else few]


def _published_mark(row: dict[str, Fact], x: str, y: str) -> Mark | None:
    first, second = row.get(x), row.get(y)
    if second is None:
        return None
    across = first.value if first else second.params_m if x == "params_total" else None
    if across is None:
        return None
    parts = [f for f in (first, second) if f is not None]
    origins: tuple[Origin, ...] = tuple(published_marks.origin(f) for f in parts)
    reading = "digitised" if any(f.reading == "digitised" for f in parts) else "printed"
    label = " ".join(filter(None, (second.tokenizer, second.setting)))
    return Mark(across, second.value, origins, reading, label)
