"""Scaling: any result over any other or over a setting, with the paper's numbers and fits."""

from __future__ import annotations

import streamlit as st

from analysis.figures.scaling import PRESETS, Fitting, Scaling, choices, preset
from analysis.store.export import csv_bytes
from analysis.store.requests import RequestError
from analysis.store.runs import measured, scored
from analysis.studies.study import WatchedStudy
from dashboards import reading
from dashboards.plotting.base import Spec
from dashboards.plotting.charts import PICK, ZOOM
from dashboards.source import PageSource
from dashboards.widgets import (
    ZOOMS,
    captions,
    choose_axes,
    download,
    open_trial,
    pdf_of,
    picture,
    table,
)
from gigatok.text.markdown import plain

_SWEEP, _OWN = "The sweep's axis", "Own axes"
_PAPER = "The paper's numbers on the same axes"
_FRONT = "What no other trial beats in both"
MOST_DRAWN = 2000
"""Points that a PDF takes: each is an object of its own there."""
_LAWS: dict[str, Fitting] = {
    "No fit": "none",
    "Power law a·x^b": "power",
    "Saturating c + a·x^-b": "saturating",
}


def show(source: PageSource, study: WatchedStudy, at: str) -> None:
    """Draw the view."""
    if not scored(study.runs):
        st.info("No trial has a result yet; this view fills as stages complete.")
        return
    top = st.columns([3, 2, 1, 1], vertical_alignment="bottom")
    # Only what was measured is offered: nothing leads to an empty view.
    presets = {name: axes for name in PRESETS if (axes := preset(name, study.runs))}
    plots = [_SWEEP, *presets, _OWN]
    question = top[0].selectbox("Plot", plots, key="plot", bind="query-params")
    law = top[1].selectbox("Fit", list(_LAWS), key="fit", bind="query-params")
    published = top[2].toggle("Paper", key="paper", bind="query-params", help=_PAPER)
    front = top[3].toggle("Front", key="front", bind="query-params", help=_FRONT)
    usual = reading.usual_axes(study, study.title.run_id, at, None)
    axes = presets.get(question, usual)
    if question == _OWN:
        axes = choose_axes(choices(study.runs), measured(study.runs), usual)
    try:
        found, figure = reading.chart(
            study, study.title.run_id, at, *axes, published, _LAWS[law], front
        )
    except RequestError as error:
        st.info(f"{plain(str(error).capitalize())}.")
        return
    _plot(source, study, found, figure)
    _words(study, found)


def _plot(source: PageSource, study: WatchedStudy, found: Scaling, figure: Spec) -> None:
    # A key for each pair of axes: a point selected on one chart is another on the next.
    key = f"chart {found.chart.x.key} {found.chart.y.key}"
    picked = picture(figure, key=key, keeps=[PICK, ZOOM]).get(PICK) or [{}]
    # Fits, fronts and the paper's marks lead to no run.
    run_id = picked[0].get("run")
    if not run_id:
        hint = "Hover over a point to see its trial; click it for the way to its run."
        st.caption(f"{hint} {ZOOMS}")
        return
    rows = dict(study.runs.select("run_id", "trial").iter_rows())
    columns = st.columns([2, 1, 1], vertical_alignment="center")
    columns[0].markdown(f"**{plain(rows.get(run_id, run_id))}**")
    url = source.run_url(study.title.experiment, run_id)
    columns[1].link_button("Open in MLflow", url, width="stretch")
    # In a callback, as the view's own widget is drawn already.
    columns[2].button("Open the trial", on_click=open_trial, args=(run_id,), width="stretch")
    if source.mlflow_command:
        st.caption(f"The MLflow link needs {plain(source.mlflow_command)}.")


def _words(study: WatchedStudy, found: Scaling) -> None:
    for sentence in found.sentences:
        st.markdown(f"* {plain(sentence)}")
    captions(found.notes)
    stem = f"{study.title.sweep}-{found.chart.y.key}-over-{found.chart.x.key}"
    # Not by their table, which of very many is made only when it is downloaded.
    many = len(found.chart.marks) > MOST_DRAWN
    with st.container(horizontal=True):
        label = f"PDF (up to {MOST_DRAWN:,} points)" if many else "PDF"
        pdf = lambda: pdf_of(found.figure())  # noqa: E731
        download(label, pdf, f"{stem}.pdf", disabled=many)
        download("CSV", lambda: csv_bytes(found.marks), f"{stem}.csv")
    if not many:
        with st.expander(f"The {found.marks.height:,} points as a table"):
            table(found.marks)
