"""Figures of runs: from the declaration of a figure and the trials of a store to its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import polars as pl

from analysis.charts.grammar import Chart, FigureData, Grid, axis, with_distinct_looks
from analysis.claims.confounds import find_confounds
from analysis.figures.curves import SCALE, STEP, bars_of_search, guidance_series, training_series
from analysis.figures.derived import FRONT_NAME, pareto_front
from analysis.figures.registry import RunsRequest, of_runs
from analysis.figures.settings import bars_of, omitted, settings_chart
from analysis.statistics.groups import Group, groups
from analysis.store.artifacts import logged_picture
from analysis.store.requests import RequestError
from analysis.store.runs import measured, origin
from analysis.tables.results import incomplete, protocol_notes, sweep_and_scale
from gigatok.names import METRICS, PARAM_TOKENIZER, TRAIN_PREFIX, quantity, steadier
from gigatok.text.command_lines import command

_NAMED_TRIALS = 6
"""Trials without a result that a caption names; the rest are counted."""


class Panel(NamedTuple):
    """Declaration of one chart.

    Attributes:
        x: metric, config key, `step` of training or scale of a guidance search.
        y: metric or logged name; of `a|b` the first one that was measured. KID replaces FID where
            it was measured.
        title: by default the label of y.
    """

    x: str
    y: str
    title: str = ""


@dataclass(frozen=True)
class RunFigure:
    """Declaration of a figure of runs.

    Attributes:
        sweeps: those that answer the question, best first; the first one is to be launched
            where the store has none.
        pictures: stage and name of picture grids.
        needs: a metric without which a sweep has nothing to show here.
        options: what a launch needs to measure it.
        front: whether each chart has the Pareto front of its settings.
        own_x: x of each of the sweeps, where every one of them adds the charts over its own.
        paper: its number in the paper, where no published numbers have it.
    """

    name: str
    title: str
    sweeps: tuple[str, ...]
    panels: tuple[Panel, ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()
    needs: str = ""
    options: str = ""
    front: bool = False
    own_x: tuple[str, ...] = ()
    paper: str = ""


def declare(figure: RunFigure) -> RunFigure:
    """Add a figure to the registry."""
    # The same door as for figures that are functions.
    of_runs(figure.name, figure.paper, figure.sweeps)(partial(run_figure, figure))
    return figure


def run_figure(wanted: RunFigure, request: RunsRequest) -> FigureData:
    """Make a declared figure from the trials of a store.

    Raises:
        RequestError: the store has no data for it; the message names the sweep to launch.
    """
    if request.curves:
        panels = tuple(Panel(STEP, name, name) for name in request.curves)
        # The sweeps stay: the curves are those of the trials that the figure would show.
        wanted = replace(wanted, title="Training curves", panels=panels)
    made = assembled(wanted, request)
    if made.charts or made.grids:
        return made
    launches = " or ".join(
        f"`{command('orchestration.launch', sweep, *wanted.options.split())}`"
        for sweep in wanted.sweeps
    )
    raise RequestError(f"{wanted.name}: no runs for it in the store; they come from {launches}")


def assembled(wanted: RunFigure, request: RunsRequest) -> FigureData:
    """Join what each sweep adds to a figure; without charts where there are no data."""
    parts = [_part(wanted, table, request) for table in _tables(wanted, request.trials.table)]
    return FigureData(
        wanted.name,
        wanted.title,
        "runs",
        with_distinct_looks([chart for part in parts for chart in part.charts]),
        tuple(note for part in parts for note in part.notes),
        tuple(grid for part in parts for grid in part.grids),
        tuple(words for part in parts for words in part.missing),
    )


def _part(wanted: RunFigure, table: pl.DataFrame, request: RunsRequest) -> FigureData:
    """Make what one sweep adds to a figure."""
    have, found, uri = measured(table), groups(table), request.trials.uri
    # Most figures have no `own_x`: every panel is then drawn for the sweep that was found.
    own_x = dict(zip(wanted.sweeps, wanted.own_x, strict=False)).get(table["sweep"][0])
    panels = [_resolved(p, have, request) for p in wanted.panels if own_x in (None, p.x)]
    charts, missing = [], []
    for panel in panels:
        chart = _chart(found, panel, uri, front=wanted.front)
        if chart is None:
            missing.append(f"{panel.title} ({_why_empty(found, panel)})")
            continue
        charts.append(chart)
        # Curves have no coordinates that could be missing.
        absent = omitted(found, panel.x, panel.y) if panel.y in METRICS else []
        # By title: a chart's letter is another one where it joins published charts.
        head = f"{panel.title}: " if len(panels) > 1 else ""
        missing += [head + ", ".join(absent)] if absent else []
    keys = [key for panel in panels for key in panel[:2]] + [wanted.needs]
    shown = [key for key in keys if key in METRICS]
    is_search = any(panel.x == SCALE for panel in panels)
    bars = bars_of_search(charts) if is_search else bars_of(charts)
    notes = [*mark_notes(found, table, shown, charts, bars), *_warnings(table, shown)]
    # Read last: each picture is a file of its own, which a server has to send.
    grids = [g for spec in wanted.pictures if (g := _grid(found, spec, uri))]
    return FigureData(
        wanted.name, "", "runs", tuple(charts), tuple(notes), tuple(grids), tuple(missing)
    )


def _tables(wanted: RunFigure, runs: pl.DataFrame) -> list[pl.DataFrame]:
    """Select the trials of the first sweep that has results, or of every one."""
    tables = [runs.filter(pl.col("sweep") == sweep) for sweep in wanted.sweeps]
    # A sweep that failed before its first score must not hide the next best one.
    tables = [table for table in tables if len(table) and measured(table)]
    if wanted.needs:
        tables = [table for table in tables if wanted.needs in measured(table)]
    return tables if wanted.own_x else tables[:1]


def _resolved(panel: Panel, have: Sequence[str], request: RunsRequest) -> Panel:
    """Choose the first of `a|b` that was measured, else the first; and KID before FID."""
    names = panel.y.split("|")
    pair = (panel.x, next((name for name in names if name in have), names[0]))
    # Beside the paper FID stays FID, which is all that the paper has, and its sizes are with the
    # training-only head.
    x, y = pair if request.beside_paper else steadier(pair, have)
    if request.beside_paper and x == "params_tokenizer":
        x = "params_total"
    return Panel(x, y, panel.title or quantity(y).label)


def _chart(found: Sequence[Group], panel: Panel, uri: str, *, front: bool) -> Chart | None:
    """Make one chart; None where no setting has both coordinates."""
    if panel.x in (SCALE, STEP):
        make = guidance_series if panel.x == SCALE else training_series
        series = make(found, panel.y, uri)
        y = axis(panel.y.removeprefix(TRAIN_PREFIX))
        return Chart(panel.title, axis(panel.x), y, tuple(series)) if series else None
    chart = settings_chart(found, panel.title, panel.x, panel.y)
    if chart is None or not front:
        return chart
    # Less of x is better whatever it is: sizes are what is paid.
    line = pareto_front(chart.series, None, chart.y.metric.better, f"{FRONT_NAME} of runs")
    return replace(chart, series=(*chart.series, line))


def _why_empty(found: Sequence[Group], panel: Panel) -> str:
    if panel.x in (SCALE, STEP):
        return f"{panel.y} not logged"
    keys = [key for key in panel[:2] if key in METRICS]
    absent = [quantity(k).label for k in keys if not any(group.values(k) for group in found)]
    return f"{', '.join(absent)} not measured" if absent else "no trial has both coordinates"


def _grid(found: Sequence[Group], spec: tuple[str, str], uri: str) -> Grid | None:
    """Collect the logged picture of the first seed of every setting that has one."""
    stage, name = spec
    columns = []
    for group in found:
        logged = ((row, logged_picture(uri, row["run_id"], stage, name)) for row in group.rows)
        # A generator, so that no picture is read after the first one that is there.
        first = next(((row, png) for row, png in logged if png is not None), None)
        if first is not None:
            columns.append((group.label, origin(first[0], []), first[1]))
    return Grid(name, tuple(columns)) if columns else None


def mark_notes(
    found: Sequence[Group],
    table: pl.DataFrame,
    metrics: Sequence[str],
    charts: Sequence[Chart],
    bars: str,
) -> list[str]:
    """Say whose marks they are, what their bars mean, and how the metrics were measured."""
    tokenizers = ", ".join(dict.fromkeys(table[PARAM_TOKENIZER].to_list()))
    sentences = [f"Runs: {sweep_and_scale(table)} ({tokenizers})."]
    counts = sorted({len(mark.seeds) for chart in charts for mark in chart.marks if mark.seeds})
    if counts:
        numbers = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        sentences.append(f"Seeds per setting: {numbers}.")
    # A single series has no legend, so that its name must be said here.
    names = {series.name for chart in charts for series in chart.series}
    if len(names) == 1 and len(counts) and (name := names.pop()).startswith("with"):
        sentences.append(f"All {name}.")
    if bars:
        sentences.append(f"Bars: {bars}.")
    if counts and counts[-1] > 1:
        sentences.append("Large marks are means, small open ones seeds.")
        if any(series.joined for chart in charts for series in chart.series):
            sentences.append("Lines join sizes, the smallest first; nothing is fitted.")
    return [" ".join(sentences), *protocol_notes(found, dict.fromkeys(metrics))]


def _warnings(table: pl.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say what else differs between the trials of a figure, and which numbers are absent."""
    nothing = pl.lit(None, pl.Float64)
    # Confounds of metrics that the figure does not show would only lengthen its caption.
    drawn = table.with_columns(nothing.alias(name) for name in METRICS if name not in metrics)
    wanted = [name for name in dict.fromkeys(metrics) if name in measured(table)]
    absent = incomplete(table, wanted)
    more = len(absent) - _NAMED_TRIALS
    return [
        *find_confounds(drawn),
        *absent[:_NAMED_TRIALS],
        *([f"{more} more trials are not complete or lack a number."] if more > 0 else []),
    ]
