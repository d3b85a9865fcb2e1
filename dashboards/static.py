"""A study as one HTML file: Vega once inside, pictures as data, no network needed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader

from analysis.figures.curves import curve_chart
from analysis.figures.scaling import PRESETS, Fitting, first_chart, preset, scaling
from analysis.figures.search_history import main_chart, read_search
from analysis.store.artifacts import Outside
from analysis.store.requests import RequestError
from analysis.store.runs import scored
from analysis.studies import trial
from analysis.studies.answer import Answer, answer
from analysis.studies.study import (
    WatchedStudy,
    list_studies,
    load_study,
    log_tail,
    seconds_left,
    state_table,
)
from analysis.tables.results import result_table
from dashboards.plotting.bars import states_figure, uses_figure
from dashboards.plotting.base import Spec
from dashboards.plotting.charts import chart_figure
from dashboards.plotting.curves import curve_figure
from dashboards.source import PageSource
from dashboards.words import duration, in_words
from gigatok.text.credentials import shown

MOST_TRIALS = 24
"""Trials whose curves and settings are in the file; its text says when there are more."""
MOST_ROWS = 1000
MOST_RESULTS = 500
MOST_FAILURES = 50


def write_page(source: PageSource, sweep: str, scale: str | None, out: Path) -> Path:
    """Write the newest launch of a sweep.

    Raises:
        RequestError: the store does not have it.
    """
    # Newest first, so that the first one that fits is the one that users mean.
    titles = list_studies(source.uri)
    found = [t for t in titles if t.sweep == sweep and scale in (None, t.scale)]
    if not found:
        have = ", ".join(f"{t.sweep} {t.scale}" for t in titles)
        wanted = f"{sweep} {scale or ''}".strip()
        raise RequestError(
            f"no study {wanted!r} in {shown(source.uri)}; it holds: {have or 'nothing'}"
        )
    study = load_study(source.uri, found[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(source, study), encoding="utf-8")
    return out


def page(source: PageSource, study: WatchedStudy) -> str:
    """Render the HTML."""
    # Each trial brings its curves and pictures: the file must stay one that a browser opens.
    rows = study.runs.head(MOST_TRIALS).to_dicts()
    left, basis = seconds_left(study)
    searched = read_search(source.uri, study.title.run_id)
    found = answer(study.runs, source.uri, searched)
    # Names and errors of others are text in the page, never HTML.
    environment = Environment(loader=PackageLoader("dashboards"), autoescape=True)
    environment.filters["shell"] = quote
    run_url = partial(source.run_url, study.title.experiment)
    environment.globals.update(duration=duration, word=in_words, run_url=run_url)
    return environment.get_template("export.html.j2").render(
        study=study,
        over=set(study.counts) <= {"COMPLETE", "PRUNED"},
        answer=found,
        figure=_answering(study, found, searched),
        left=left,
        basis=basis,
        # A megabyte, once for all charts; a link instead would need the network.
        vega=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        stages=_html(states_figure(study)),
        states=state_table(study).head(MOST_ROWS).to_dicts(),
        results=result_table(study.runs) if study.runs.height <= MOST_RESULTS else None,
        most_results=MOST_RESULTS,
        failures=[(f, _log(source, f.stage_run)) for f in study.failures[:MOST_FAILURES]],
        charts=_charts(study),
        pictures=_pictures(source, rows),
        trials=[_trial(source, study, row) for row in rows],
    )


def _html(figure: Spec) -> str:
    """Write a chart that the script of the page draws: its data, where it is to stand."""
    # Names of others end no script: no tag begins in it.
    data = json.dumps(figure, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    height = figure["height"]
    return (
        f'<div class="chart" style="height: {height}px">'
        f'<script type="application/json">{data}</script></div>'
    )


def _answering(study: WatchedStudy, found: Answer, searched: Mapping[str, Any] | None) -> str:
    """Draw the figure below the answer; empty where no trial has what it shows."""
    if not scored(study.runs):
        return ""
    if searched is not None:
        shown = main_chart(searched, study.title.run_id)
        return "" if shown is None else _html(chart_figure(shown))
    try:
        return _html(chart_figure(first_chart(study.runs, found.metric).chart))
    except RequestError:
        return ""


def _charts(study: WatchedStudy) -> list[dict[str, Any]]:
    made = []
    for question in PRESETS:
        axes = preset(question, study.runs)
        if axes is None:
            continue
        # A scaling law over sizes; in a plane of two scores a front says more.
        law: Fitting = "power" if axes[0] == "params_tokenizer" else "none"
        try:
            found = scaling(study.runs, *axes, published=True, law=law, front=law == "none")
        except RequestError:
            continue  # It was measured, but no trial has both: there is nothing to draw.
        notes = [*found.sentences, *found.notes]
        made.append({"title": question, "html": _html(chart_figure(found.chart)), "notes": notes})
    return made


def _log(source: PageSource, stage_run: str) -> str:
    try:
        return log_tail(source.uri, stage_run, source.runs_dir) or "no log was sent"
    except Outside as outside:
        return str(outside)


def _pictures(source: PageSource, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for stage, name in trial.PICTURES:
        images, note = [], "none was logged"
        try:
            found = trial.pictures(source.uri, rows, (stage, name), source.runs_dir)
            images = [(head, base64.b64encode(png).decode()) for head, png in found]
        except Outside as outside:
            note = str(outside)
        made.append({"name": name, "images": images, "note": "" if images else note})
    return made


def _trial(source: PageSource, study: WatchedStudy, row: Mapping[str, Any]) -> dict[str, Any]:
    found = trial.load_trial(source.uri, study.runs, str(row["run_id"]))
    figures = []
    for stage, keys in trial.panels(found, study.stages).items():
        for key in keys:
            chart = curve_chart(found, stage, key)
            figures.append(_html(curve_figure(chart, f"{stage}: {chart.y.label}")))
    uses = found.code_uses
    counts = uses["uses"].to_list(), uses["codes"].to_list()
    return {
        "row": row,
        "curves": figures,
        "uses": "" if uses.is_empty() else _html(uses_figure(*counts)),
        "results": trial.results(row).rows(),
        "settings": trial.settings(row, study.runs).rows(),
        "provenance": trial.provenance(row, study.cells).rows(named=True),
    }
