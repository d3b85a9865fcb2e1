"""Figures of runs: from the declaration of a figure and the trials of a store to its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mode
from typing import NamedTuple

import polars as pl

from analysis.charts.grammar import (
    Chart,
    FigureData,
    Grid,
    axis,
    side_by_side,
    with_distinct_looks,
)
from analysis.claims.confounds import find_confounds
from analysis.figures.curves import bars_of_search, guidance_series, training_series
from analysis.figures.parts.derived import FRONT_NAME, pareto_front
from analysis.figures.parts.registry import RunsRequest, StoreTrials, of_runs
from analysis.figures.settings import (
    SCALE,
    STEP,
    Encoding,
    bars_of,
    encoding,
    left_unsaid,
    omitted,
    panel_title,
    settings_chart,
    split,
)
from analysis.statistics.groups import Group, groups
from analysis.store.artifacts import logged_picture
from analysis.store.requests import RequestError
from analysis.store.runs import PROTOCOL, measured, origin, params_of
from analysis.store.selecting import known_name, matching
from analysis.tables.folding import brief_labels
from analysis.tables.notes import incomplete, protocol_notes
from analysis.tables.results import sweep_and_scale
from gigatok.names import (
    METRICS,
    PARAM_SEED,
    PARAM_TOKENIZER,
    TRAIN_PREFIX,
    FigureChoice,
    quantity,
    steadier,
)
from gigatok.text.command_lines import command

_NAMED_TRIALS = 6
"""Trials or settings without a result that a caption names; the rest are counted."""


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


PICTURES = (("evaluate_reconstruction", "reconstructions"), ("evaluate_generation", "samples"))
"""Stage and name of the pictures by which tokenizers and generators are judged."""
PICTURES_TITLE = "Reconstructions (pairs: original, reconstruction) and samples"


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
    where = request.choice.where
    tables = [matching(table, where) for table in _tables(wanted, request.trials)]
    parts = [_part(wanted, table, request) for table in tables]
    return FigureData(
        wanted.name,
        wanted.title,
        "runs",
        with_distinct_looks([chart for part in parts for chart in part.charts]),
        (*selected(where), *(note for part in parts for note in part.notes)),
        tuple(grid for part in parts for grid in part.grids),
        tuple(words for part in parts for words in part.missing),
    )


def selected(where: Sequence[str]) -> list[str]:
    """Say which trials are shown; nothing where all are."""
    return [f"Only trials with {' and '.join(where)}."] if where else []


def checked_choice(choice: FigureChoice, table: pl.DataFrame) -> FigureChoice:
    """Complete shortened names of a choice, such as `lr` for `tokenizer.lr`.

    Raises:
        RequestError: a name that the trials do not have, or an axis that does not vary.
    """
    have, params = measured(table), params_of(table)
    varied = [c for c in params if c != PARAM_SEED and table[c].n_unique() > 1]
    x = choice.x and known_name(choice.x, "--x", [STEP, SCALE, *have, *params])
    # Any name may have been logged: `train/loss`, `generator:val/loss`.
    y = tuple(name if "/" in name else known_name(name, "--y", have) for name in choice.y)
    by, panel = (
        name and known_name(name, option, varied)
        for name, option in ((choice.by, "--by"), (choice.panel, "--panel"))
    )
    return FigureChoice(x, y, by, panel, choice.where)


def chosen_panels(own: Sequence[Panel], choice: FigureChoice) -> tuple[Panel, ...]:
    """Replace the axes of charts by those of a choice; without a choice they stay.

    A metric that the figure has keeps its own x; another one has that of most charts, and what
    was logged over steps, such as `train/loss`, has steps.
    """
    if not (choice.x or choice.y):
        return tuple(own)
    usual = choice.x or mode([panel.x for panel in own] or [STEP])
    if not choice.y:
        return tuple(dict.fromkeys(panel._replace(x=usual) for panel in own))
    mine = [panel for panel in own if panel.y in choice.y and choice.x in ("", panel.x)]
    others = [y for y in choice.y if y not in {panel.y for panel in mine}]
    logged = usual if usual == SCALE else STEP
    made = [*mine, *(Panel(logged if "/" in y else usual, y) for y in others)]
    return tuple(sorted(made, key=lambda panel: choice.y.index(panel.y)))


def _part(wanted: RunFigure, table: pl.DataFrame, request: RunsRequest) -> FigureData:
    """Make what one sweep adds to a figure."""
    request = replace(request, choice=checked_choice(request.choice, table))
    have, found, uri = measured(table), groups(table), request.trials.uri
    # Most figures have no `own_x`: every panel is then drawn for the sweep that was found.
    own_x = dict(zip(wanted.sweeps, wanted.own_x, strict=False)).get(table["sweep"][0])
    own = [panel for panel in wanted.panels if own_x in (None, panel.x)]
    panels = [_resolved(p, have, request) for p in chosen_panels(own, request.choice)]
    charts: list[Chart] = []
    missing: list[str] = []
    for panel in panels:
        drawn = _charts(found, panel, request, front=wanted.front)
        if not drawn:
            missing.append(f"{panel.title} ({_why_empty(found, panel)})")
            continue
        charts += drawn
        # Curves have no coordinates that could be missing.
        absent = omitted(found, panel.x, panel.y) if panel.y in METRICS else []
        # By title: a chart's letter is another one where it joins published charts.
        head = f"{panel.title}: " if len(panels) > 1 else ""
        missing += [head + ", ".join(_few(absent))] if absent else []
    keys = [key for panel in panels for key in panel[:2]] + [wanted.needs]
    shown = [key for key in keys if key in METRICS]
    is_search = any(panel.x == SCALE for panel in panels)
    bars = bars_of_search(charts) if is_search else bars_of(charts)
    unsaid = left_unsaid(encoding(found, panel.x, request.choice) for panel in panels)
    notes = [*unsaid, *mark_notes(found, table, shown, charts, bars), *_warnings(table, shown)]
    # Read last: each picture is a file of its own, which a server has to send.
    grids = [g for spec in wanted.pictures if (g := _grid(found, spec, uri))]
    return FigureData(
        wanted.name, "", "runs", tuple(charts), tuple(notes), tuple(grids), tuple(missing)
    )


def _few(names: Sequence[str]) -> list[str]:
    """Keep the first names of many, and count the others."""
    more = len(names) - _NAMED_TRIALS
    return [*names[:_NAMED_TRIALS], *([f"{more} more"] if more > 0 else [])]


def _tables(wanted: RunFigure, trials: StoreTrials) -> list[pl.DataFrame]:
    """Select the trials of the first sweep that has results, or of every one."""
    sweeps = (trials.sweep,) if trials.sweep else wanted.sweeps
    tables = [trials.table.filter(pl.col("sweep") == sweep) for sweep in sweeps]
    # A sweep that failed before its first score must not hide the next best one.
    tables = [table for table in tables if len(table) and measured(table)]
    if wanted.needs:
        tables = [table for table in tables if wanted.needs in measured(table)]
    return tables if wanted.own_x else tables[:1]


def _resolved(panel: Panel, have: Sequence[str], request: RunsRequest) -> Panel:
    """Choose the first of `a|b` that was measured, else the first; and KID before FID."""
    names = panel.y.split("|")
    pair = (panel.x, next((name for name in names if name in have), names[0]))
    # Beside the paper FID stays FID, which is all that the paper has; what is asked for, too.
    is_asked = request.choice.x or request.choice.y
    is_there = all(name in have for name in pair if name in METRICS)
    x, y = pair if request.beside_paper or (is_asked and is_there) else steadier(pair, have)
    # Its sizes are with the training-only head.
    if request.beside_paper and x == "params_tokenizer":
        x = "params_total"
    return Panel(x, y, panel.title or quantity(y).label)


def _charts(
    found: Sequence[Group], panel: Panel, request: RunsRequest, *, front: bool
) -> tuple[Chart, ...]:
    """Make a chart for each value of the third axis; none where no setting has x and y."""
    how = encoding(found, panel.x, request.choice)
    made = []
    for _, part in split(found, how.panel):
        title = panel_title(panel.title, part[0], how.panel)
        chart = _chart(part, panel._replace(title=title), request.trials.uri, how)
        if chart is not None and front:
            # Less of x is better whatever it is: sizes are what is paid.
            better = chart.y.metric.better
            line = pareto_front(chart.series, None, better, f"{FRONT_NAME} of runs")
            chart = replace(chart, series=(*chart.series, line))
        made += [chart] if chart else []
    return side_by_side(made) if len(made) > 1 else tuple(made)


def _chart(found: Sequence[Group], panel: Panel, uri: str, how: Encoding) -> Chart | None:
    """Make one chart; None where no setting has both coordinates."""
    if panel.x not in (SCALE, STEP):
        return settings_chart(found, panel.title, panel.x, panel.y, how)
    make = guidance_series if panel.x == SCALE else training_series
    series = make(found, panel.y, uri, how)
    y = axis(panel.y.removeprefix(TRAIN_PREFIX))
    return Chart(panel.title, axis(panel.x), y, tuple(series)) if series else None


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
    for group, label in zip(found, brief_labels(found), strict=True):
        logged = ((row, logged_picture(uri, row["run_id"], stage, name)) for row in group.rows)
        # A generator, so that no picture is read after the first one that is there.
        first = next(((row, png) for row, png in logged if png is not None), None)
        if first is not None:
            columns.append((label, origin(first[0], []), first[1]))
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
    shown = [series for chart in charts for series in chart.series]
    is_banded = any(series.banded for series in shown)
    if bars:
        sentences.append(f"{'Bands' if is_banded else 'Bars'}: {bars}.")
    if counts and counts[-1] > 1:
        means = "Lines are means over seeds" if is_banded else "Large marks are means"
        sentences.append(means + ("." if is_banded else ", small open ones seeds."))
        if not is_banded and any(series.joined for series in shown):
            sentences.append("Lines join settings, the smallest first; nothing is fitted.")
    return [" ".join(sentences), *protocol_notes(found, dict.fromkeys(metrics))]


def _warnings(table: pl.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say what else differs between the trials of a figure, and which numbers are absent."""
    nothing = pl.lit(None, pl.Float64)
    # Confounds of metrics that the figure does not show would only lengthen its caption, and so
    # would several ways of measuring: the notes on protocols have named them (`mark_notes`).
    drawn = table.with_columns(nothing.alias(name) for name in METRICS if name not in metrics)
    drawn = drawn.with_columns(pl.lit("").alias(PROTOCOL + name) for name in METRICS)
    wanted = [name for name in dict.fromkeys(metrics) if name in measured(table)]
    absent = incomplete(table, wanted)
    more = len(absent) - _NAMED_TRIALS
    return [
        *find_confounds(drawn),
        *absent[:_NAMED_TRIALS],
        *([f"{more} more trials are not complete or lack a number."] if more > 0 else []),
    ]
