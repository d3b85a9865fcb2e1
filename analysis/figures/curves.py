"""Curves that stages logged: over training steps, over the scales of a search, of one trial.

Over steps a curve is the mean of a setting's seeds, with their interval as a band.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from analysis.charts import style
from analysis.charts.grammar import (
    Bar,
    Chart,
    FigureData,
    Grid,
    Mark,
    Origin,
    Series,
    axis,
    bar_of,
)
from analysis.charts.style import Look
from analysis.figures.settings import SCALE, STEP, Encoding, look_of, series_name
from analysis.statistics.estimates import Interval, estimate
from analysis.statistics.groups import Group, choose_interval
from analysis.store.runs import STAGE_KEY, STAGE_RUN, load_curves
from analysis.studies.trial import LoadedTrial, curve
from gigatok.names import PARAM_SEED, quantity

MOST_POINTS = 400
"""Points of a curve in an overlay: more are not told apart on a screen."""
CHOSEN = "chosen scale"
_SEARCH = "search_guidance"
_STAR = Look("#222222", "*")
_LINE = Look(style.BLUE, "")
_GENERATOR = "generator:"
"""Prefix of the names of curves that the generator's training logged."""


def training_series(found: Sequence[Group], metric: str, uri: str, how: Encoding) -> list[Series]:
    """Make a curve over training steps for every setting, from the stage runs that logged it."""
    # Both trainings log `train/loss`; the prefix tells which one is meant.
    stage = "train_generator" if metric.startswith(_GENERATOR) else "train_tokenizer"
    name = metric.removeprefix(_GENERATOR)
    made = []
    for group in found:
        curves = [(row, dict(_logged(row, stage, name, uri).iter_rows())) for row in group.rows]
        logged = [(_origin(row, stage, name), curve) for row, curve in curves if curve]
        if logged:
            # Curves hold stored values; a curve of a score is printed in the score's unit.
            marks = _mean_curve(logged, quantity(name).factor, how.interval)
            made.append(
                Series(series_name(group, how), marks, look_of(group, how), banded=len(logged) > 1)
            )
    return made


def _mean_curve(
    logged: Sequence[tuple[Origin, Mapping[int, float]]], scale: float, interval: Interval
) -> tuple[Mark, ...]:
    """Average curves of several seeds at the steps that all of them logged."""
    # A mean over other seeds at every step would jump where one of them is missing.
    shared = sorted(set.intersection(*(set(curve) for _, curve in logged)))
    origins = tuple(origin for origin, _ in logged)
    marks = []
    for step in shared:
        values = [curve[step] * scale for _, curve in logged]
        # A diverged seed has no mean; its own curve ends there.
        if all(map(math.isfinite, values)):
            mean = estimate(values, interval)
            seeds = tuple((float(step), value) for value in values)
            bar = bar_of(mean, 1.0)
            marks.append(Mark(float(step), mean.mean, origins, "run", y_bar=bar, seeds=seeds))
    return tuple(marks)


def guidance_series(found: Sequence[Group], y: str, uri: str, how: Encoding) -> list[Series]:
    """Make a curve over the guidance scale for every trial, and a star where its search ended.

    Args:
        found: trials by setting.
        y: name logged at each scale, such as `guidance/gkid`; bars are its standard error.
        uri: tracking store that has the curves.
        how: parts of the chart that show the axes.
    """
    curves, stars = [], []
    for group, row in _trials(found):
        if marks := _searched(row, y, uri):
            curves.append(
                Series(_of_seed(series_name(group, how), group, row), marks, look_of(group, how))
            )
            # A search that stopped early has curves but no chosen scale.
            best = row.get("best_cfg_scale")
            stars += [Mark(m.x, m.y, m.origins, "run", f"{m.x:g}") for m in marks if m.x == best]
    return [*curves, Series(CHOSEN, tuple(stars), _STAR, joined=False)] if stars else curves


def bars_of_search(charts: Sequence[Chart]) -> str:
    """Say what the bars of guidance curves are, in words for a caption."""
    if all(mark.y_bar is None for chart in charts for mark in chart.marks):
        return "none, no score of the search has an error"
    return "standard error of KID at each scale, one search a curve (FID has no bars)"


def overlay(
    found: Mapping[str, Group], stage: str, key: str, uri: str, smoothing: float, *, means: bool
) -> Chart:
    """Draw a curve of several settings over steps, in one chart.

    Args:
        found: name of a setting -> the setting, with its trials.
        stage: the stage that logged the curve.
        key: its name.
        uri: tracking store that has the curves.
        smoothing: weight of what was before at each step, from 0 to below 1.
        means: means over the seeds of a setting, with their intervals; else a curve a trial.
    """
    # No link: not begun yet. A stage that trials share is one curve.
    own = [
        {r: row for row in group.rows if (r := row.get(STAGE_RUN + stage))}
        for group in found.values()
    ]
    points = load_curves(list({run for rows in own for run in rows}), key, uri)
    logged = {
        str(run): part for (run,), part in points.partition_by("run_id", as_dict=True).items()
    }
    kind, factor = choose_interval(tuple(found.values())), quantity(key).factor
    series: list[Series] = []
    for place, ((name, group), rows) in enumerate(zip(found.items(), own, strict=True)):
        curves = {r: _smoothed(logged[r], smoothing, factor) for r in rows if r in logged}
        # Dashes tell settings apart once the colours begin anew.
        turn, colour = divmod(place, len(style.CYCLE))
        look, dashed = Look(style.CYCLE[colour], ""), turn % 2 == 1
        if means and curves:
            marks = _mean_curve([({}, one) for one in curves.values()], 1.0, kind)
            series.append(Series(name, marks, look, dashed=dashed, banded=len(curves) > 1))
        elif curves:
            for run, curve_ in curves.items():
                marks = tuple(Mark(float(s), value, (), "run") for s, value in curve_.items())
                series.append(Series(_of_seed(name, group, rows[run]), marks, look, dashed=dashed))
    return Chart(stage.replace("_", " "), axis(STEP), axis(key), tuple(series))


def _smoothed(curve_: pl.DataFrame, smoothing: float, factor: float) -> dict[int, float]:
    """Average over the steps before, with weights that fall exponentially; step -> value."""
    # `adjust` divides by the sum of the weights: the first points are not drawn towards 0.
    value = (pl.col("value") * factor).ewm_mean(alpha=1 - smoothing, adjust=True)
    thinned = curve_.with_columns(value).gather_every(math.ceil(curve_.height / MOST_POINTS))
    return dict(thinned.select("step", "value").iter_rows())


def trial_figure(
    trial: LoadedTrial, panels: Mapping[str, Sequence[str]], grids: Sequence[Grid]
) -> FigureData:
    """Collect curves and pictures of a trial.

    Args:
        trial: the trial.
        panels: stage -> names of the curves to show.
        grids: its pictures, beside those of other sizes.
    """
    charts = [curve_chart(trial, stage, key) for stage, keys in panels.items() for key in keys]
    title = f"{trial.row['sweep']}: {trial.name}"
    return FigureData("trial", title, "runs", tuple(charts), (), tuple(grids))


def curve_chart(trial: LoadedTrial, stage: str, key: str) -> Chart:
    """Draw one curve that a stage logged, over its steps."""
    scale = quantity(key).factor
    points = curve(trial, stage, key).iter_rows()
    marks = tuple(Mark(float(step), value * scale, (), "run") for step, value in points)
    series = Series(trial.name, marks, _LINE)
    return Chart(stage.replace("_", " "), axis("step"), axis(key), (series,))


def _trials(found: Sequence[Group]) -> Iterable[tuple[Group, Mapping[str, Any]]]:
    return ((group, row) for group in found for row in group.rows)


def _of_seed(name: str, group: Group, row: Mapping[str, Any]) -> str:
    """Name one trial of several that differ in their seed."""
    return name + (f" seed={row[PARAM_SEED]}" if len(group.rows) > 1 else "")


def _searched(row: Mapping[str, Any], y: str, uri: str) -> tuple[Mark, ...]:
    """Read a search from the smallest scale to the largest; nothing where there was none."""
    # Scales are logged in the order of scoring, which is not that of their size.
    # Three logged names share their steps: step n of each belongs to the n-th scale that was
    # scored.
    scales, values, errors = (
        dict(_logged(row, _SEARCH, name, uri).iter_rows()) for name in (SCALE, y, f"{y}_se")
    )
    origin = _origin(row, _SEARCH, y)
    marks = []
    # A search that was killed may have logged a scale without its score.
    for step in sorted(scales.keys() & values.keys(), key=scales.__getitem__):
        value, error = values[step], errors.get(step)
        bar = None if error is None else Bar(value - error, value + error, "standard_error")
        marks.append(Mark(scales[step], value, (origin,), "run", y_bar=bar))
    return tuple(marks)


def _logged(row: Mapping[str, Any], stage: str, name: str, uri: str) -> pl.DataFrame:
    """Read a curve of a trial: `step`, `value`; empty where the stage has not run."""
    run_id = row.get(STAGE_RUN + stage)
    # The link to a stage run is null while the stage has not begun.
    return load_curves([run_id] if run_id else [], name, uri).select("step", "value")


def _origin(row: Mapping[str, Any], stage: str, metric: str) -> Origin:
    return {
        "id": row.get(STAGE_RUN + stage),
        **{name: row[name] for name in ("trial", "git_sha")},
        "stage_key": row.get(STAGE_KEY + stage),
        "metric": metric,
    }
