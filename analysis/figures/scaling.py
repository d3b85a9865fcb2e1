"""Any result against any other or against a setting, with published numbers, fronts and fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import polars as pl

from analysis.charts.grammar import (
    DIFFERENT,
    Chart,
    FigureData,
    Mark,
    Series,
    Source,
    Ticks,
    axis,
    with_distinct_looks,
)
from analysis.charts.records import chart_records, table_of
from analysis.charts.style import WITH, WITHOUT, Look, of_setting, of_tokenizer
from analysis.figures.main_axis import main_axis
from analysis.figures.parts.derived import law_curve, pareto_front
from analysis.figures.parts.marks import mark
from analysis.figures.runs import mark_notes, selected
from analysis.figures.settings import bars_of, encoding, left_unsaid, settings_chart
from analysis.figures.sweeps import own_choice
from analysis.paper.published import PAPER, Fact, facts, select, short
from analysis.statistics.fits import fit_seeds
from analysis.statistics.groups import groups
from analysis.statistics.laws import MIN_SIZES, Law
from analysis.store.requests import RequestError
from analysis.store.runs import PROTOCOL, derived_of, measured, params_of
from analysis.store.selecting import matching
from gigatok.names import (
    METRICS,
    PARAM_SEED,
    PARAM_TOKENIZER,
    SIZES,
    quantity,
    steadier,
)

MOST_GROUPED = 2000
"""Trials above which each is a point of its own: means over seeds take seconds then."""
_PROBE = "AR Probe"
"""Begins the generator's name of the paper's numbers that are made as trials are."""
_PLACES = ("Figure 3", "Figure 7", "Figure 9", "Table 2")
"""Places in the paper that have them for tokenizers of several sizes."""
_CONFOUNDS = (1, 2, 5, 6, 9, 12)
"""Numbers of the notes on them."""
_MAIN = ("rfid", "psnr", "ar_val_loss", "gfid")
"""Results by which a study is shown first, those that it has."""
Fitting = Law | Literal["none"]

PRESETS: dict[str, tuple[str, str]] = {
    "Reconstruction or generation": ("rfid", "gfid"),
    "Latent complexity": ("params_tokenizer", "ar_val_loss"),
    "Rate and distortion (Pareto)": ("ar_bits_per_image", "psnr"),
    "Size and reconstruction": ("params_tokenizer", "rfid"),
    "Size and generation": ("params_tokenizer", "gfid"),
}
"""Question -> x and y; KID takes the place of FID where it was measured."""


@dataclass(frozen=True)
class Scaling:
    """A chart with what belongs below it.

    Attributes:
        sentences: each fit in words, or why there is none.
        notes: intervals and protocols of the marks, and what is not shown.
    """

    chart: Chart
    sentences: tuple[str, ...]
    notes: tuple[str, ...]

    # Made when it is asked for: of ten thousand marks it takes as long as the chart itself.
    @cached_property
    def marks(self) -> pl.DataFrame:
        """Make a table of the chart: one row per mark."""
        return table_of(chart_records(self.chart))

    def figure(self, source: Source = "runs") -> FigureData:
        """Make a figure of the chart alone, its notes below."""
        notes = (*self.sentences, *self.notes)
        return FigureData("scaling", self.chart.title, source, (self.chart,), notes)


def choices(runs: pl.DataFrame) -> list[str]:
    """List what may be an axis: results, then what varies: settings, derived ones, sizes."""
    keys = [c for c in params_of(runs) if c != PARAM_SEED]
    keys += [*derived_of(runs), *(name for name in SIZES if name not in METRICS)]
    numeric = [c for c in keys if runs[c].dtype.is_numeric()]
    varied = [c for c in numeric if runs[c].drop_nulls().n_unique() > 1]
    # Names have places on an axis too, but only those that the study is about are worth one.
    main = main_axis(runs)
    return [*measured(runs), *varied, *([main] if _is_named(runs, main) else [])]


def _is_named(runs: pl.DataFrame, key: str) -> bool:
    """Tell whether an axis is one of names that can be drawn: only groups have places on it."""
    return (
        key in params_of(runs)
        and not runs[key].dtype.is_numeric()
        and runs[key].n_unique() > 1
        and runs.height <= MOST_GROUPED
    )


def preset(name: str, runs: pl.DataFrame) -> tuple[str, str] | None:
    """Find the axes of a preset; None where its results were not measured."""
    have = measured(runs)
    x, y = steadier(PRESETS[name], have)
    return (x, y) if x in have and y in have else None


def default_axes(runs: pl.DataFrame, metric: str | None = None) -> tuple[str, str]:
    """Choose axes for a study with results: a metric, or its main result, over its main axis.

    Args:
        runs: trials, at least one of which has a result.
        metric: that of its answer; None: not known.
    """
    have = measured(runs)
    scores = [name for name in have if METRICS[name].better]
    ranked = (metric, *steadier(_MAIN, have), *scores, *have)
    y = next(name for name in ranked if name in have)
    across = choices(runs)
    # A study of names with very many trials is drawn over a number instead.
    numbers = [key for key in across if key not in METRICS]
    return next(key for key in (main_axis(runs), *numbers, *across, y) if key in across), y


def first_chart(runs: pl.DataFrame, metric: str | None = None) -> Scaling:
    """Draw what a study shows below its answer: of the trials that its sweep's `figure` names.

    Args:
        runs: trials of one study, at least one of which has a result.
        metric: that of its answer; None: not known. A result that the sweep's figure leaves out
            gives way to the figure's first.

    Raises:
        RequestError: no trial has both, or none is left by the figure's conditions.
    """
    chosen = own_choice(runs)
    shown = matching(runs, chosen.where)
    # What it names may not be measured yet; the study is shown without it until then.
    drawn = [name for name in chosen.y if name in measured(shown)]
    x, y = default_axes(shown, metric if metric in drawn or not drawn else drawn[0])
    own = [key for key in choices(shown) if chosen.x and f".{key}".endswith(f".{chosen.x}")]
    found = scaling(shown, own[0] if own else x, y)
    return replace(found, notes=(*selected(chosen.where), *found.notes))


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
        x: one of `choices`.
        y: a metric.
        published: the paper's numbers as well, where it has both.
        law: fitted to each series over its values of x.
        front: the settings that no other beats in both.

    Raises:
        RequestError: no trial has both.
    """
    # Trials first: without any there is nothing to compare the paper with.
    own, ticks, notes = _own(runs, x, y)
    across, up = quantity(x).title, quantity(y).title
    if not own:
        raise RequestError(f"no trial has both {across} and {up}")
    mixed = _mixed(runs, x, y)
    notes += mixed
    paper = published_series(x, y) if published else []
    if published:
        none = f"The paper has no {up} with its {across}."
        notes += [*short(*_CONFOUNDS), DIFFERENT] if paper else [none]
    # Where x has a better direction as well, up and right are better (`Chart.better_up`).
    is_plane = x in METRICS and METRICS[x].better is not None
    drawn = Chart(f"{up} over {across}", axis(x, ticks=ticks), axis(y), tuple(own), is_plane)
    (chart,) = with_distinct_looks([drawn])
    # No line may run through numbers that were measured in different ways.
    fits, sentences = ([], []) if mixed else _fits(chart, law)
    better_x, better_y = (METRICS[key].better if key in METRICS else None for key in (x, y))
    best = [pareto_front(own, better_x, better_y)] if front and not mixed else []
    chart = replace(chart, series=(*chart.series, *best, *fits, *paper))
    return Scaling(chart, tuple(sentences), tuple(notes))


def published_series(x: str, y: str) -> list[Series]:
    """Collect the paper's AR probes that have both: a series for each place and setting."""
    rows: dict[tuple[object, ...], dict[str, Fact]] = {}
    for fact in facts():
        # Only the AR probe is trained as trials are; full systems are no comparison.
        probed = fact.generator == "" or fact.generator.startswith(_PROBE)
        if fact.work == PAPER and fact.place in _PLACES and fact.metric in (x, y) and probed:
            # Both numbers of a mark are of one row of the paper; rows of two places are never
            # paired.
            key = (fact.place, fact.tokenizer, fact.variant, fact.semantic, fact.setting)
            rows.setdefault(key, {}).setdefault(fact.metric, fact)
    named: dict[str, list[Mark]] = {}
    looks: dict[str, Look] = {}
    for (place, _, variant, semantic, _), row in rows.items():
        found = _published_mark(row, x, y)
        if found is not None:
            words = ["paper", str(place), str(variant).upper()] + (["+reg"] if semantic else [])
            name = " ".join(filter(None, words))
            named.setdefault(name, []).append(found)
            is_2d = of_setting("tokenizer.variant", variant) if variant == "2d" else None
            looks[name] = is_2d or (WITH if semantic else WITHOUT)
    return [Series(n, tuple(marks), looks[n], joined=False) for n, marks in named.items()]


def _mixed(runs: pl.DataFrame, x: str, y: str) -> list[str]:
    """Say why nothing may run through all marks: an axis was measured in several ways."""
    # Protocols of trials that lack a coordinate are not drawn and mix with nothing.
    both = runs.filter(pl.col(x).is_not_null() & pl.col(y).is_not_null())
    ways = {key: both[PROTOCOL + key].n_unique() for key in (x, y) if key in METRICS}
    return [
        f"{METRICS[key].label} was measured in {count} ways: no fit and no front mix them."
        for key, count in ways.items()
        if count > 1
    ]


def _own(runs: pl.DataFrame, x: str, y: str) -> tuple[list[Series], Ticks, list[str]]:
    """Make the series of trials, the ticks of an x of names, and say what to know about them."""
    if runs.height > MOST_GROUPED:
        note = f"Each point is one of {runs.height:,} trials; seeds are not averaged."
        return _single(runs, x, y), (), [note]
    made: list[Series] = []
    notes: list[str] = []
    ticks: list[Ticks] = []
    # Plans may repeat a setting; the name then says which study a mark is from.
    several = runs["plan"].n_unique() > 1
    for part in runs.partition_by("sweep", "scale", "plan", maintain_order=True):
        found = groups(part)
        how = encoding(found, x, panels=False)
        chart = settings_chart(found, "", x, y, how)
        if chart is None:
            continue
        ticks.append(chart.x.ticks)
        head = f"{part['sweep'][0]} {part['scale'][0]}: " if several else ""
        made += [replace(series, name=head + series.name) for series in chart.series]
        shown = [key for key in (x, y) if key in METRICS]
        notes += [*left_unsaid([how]), *mark_notes(found, part, shown, [chart], bars_of([chart]))]
    # Studies that do not have the same names share no places for them.
    shared = ticks[0] if len(set(ticks)) == 1 else ()
    return made, shared, list(dict.fromkeys(notes))


def _single(runs: pl.DataFrame, x: str, y: str) -> list[Series]:
    """Make every trial a mark; a series for each tokenizer."""
    across, up = (pl.col(key) * quantity(key).factor for key in (x, y))
    shown = runs.select("run_id", "trial", PARAM_TOKENIZER, x=across, y=up)
    marks: dict[str, list[Mark]] = {}
    finite = shown.filter(pl.col("x").is_finite() & pl.col("y").is_finite())
    for run, trial, tokenizer, right, high in finite.iter_rows():
        one = Mark(right, high, ({"id": run, "run_id": run, "trial": trial},), "run")
        marks.setdefault(str(tokenizer), []).append(one)
    looks = {name: of_tokenizer(name, regularised=False) for name in marks}
    return [Series(n, tuple(found), looks[n], joined=False) for n, found in marks.items()]


def _fits(chart: Chart, law: Fitting) -> tuple[list[Series], list[str]]:
    """Fit a law to each series that has enough sizes; return the curves, and sentences on them."""
    if law == "none":
        return [], []
    if chart.x.ticks:
        return [], ["No fit: x are names, which have no distance."]
    made, said = [], []
    # Marks of the paper are not in it yet: a law over runs and paper would fit the difference of
    # both.
    for series in chart.series:
        pairs = [pair for mark in series.marks for pair in mark.seeds or ((mark.x, mark.y),)]
        try:
            fit = fit_seeds(pairs, law)
        except RequestError as error:
            said.append(f"{series.name}: no fit, {error}.")
            continue
        # A curve that may as well bend the other way would be read as one that does not.
        if fit.status != "undetermined":
            made.append(law_curve(fit, f"fit of {series.name}", series.look))
        said.append(f"{series.name}: {fit.sentence}")
    few = f"A fit needs {MIN_SIZES[law]} different values of {quantity(chart.x.key).title}."
    return made, [*said, "x and y are in the units of the axes." if made else few]


def _published_mark(row: dict[str, Fact], x: str, y: str) -> Mark | None:
    first, second = row.get(x), row.get(y)
    if second is None:
        return None
    across = first or _published_size(second, x)
    if across is None:
        return None
    return mark(across, second, " ".join(filter(None, (second.tokenizer, second.setting))))


def _published_size(fact: Fact, quantity: str) -> float | None:
    """Find a tokenizer's millions of parameters, which the paper states in the row of a score."""
    if fact.params_m is None or quantity not in ("params_total", "params_tokenizer"):
        return None
    if quantity == "params_total":
        return fact.params_m
    # The published sizes are with the head of semantic regularisation (GigaTok, Table 9), whose
    # size goes with the decoder's.
    heads = select("Released recipes", metric="params_head", decoder=fact.decoder)
    return fact.params_m - heads[0].value if heads else None
