"""Compare: studies beside each other, on the same axes and setting by setting."""

from __future__ import annotations

import streamlit as st

from analysis.figures.scaling import choices, default_axes, scaling
from analysis.store.export import csv_bytes
from analysis.store.requests import RequestError
from analysis.studies.comparing import (
    Studies,
    beside,
    setting_differences,
    shared_metrics,
    together,
)
from analysis.studies.study import Title, WatchedStudy
from dashboards import reading
from dashboards.plotting.charts import ZOOM, chart_figure
from dashboards.source import PageSource
from dashboards.widgets import captions, choose_axes, download, pdf_of, picture, table
from gigatok.text.markdown import plain

MOST_TRIALS = 2000
"""Trials of all studies up to which they are compared setting by setting."""


def show(source: PageSource, study: WatchedStudy, titles: list[Title], at: str) -> None:
    """Draw the view."""
    # By run id: two launches within one minute have the same name.
    others = {t.run_id: t for t in titles if t.run_id != study.title.run_id}
    if not others:
        st.info("The store holds one study only; launch another sweep or scale to compare.")
        return
    names = {run: title.name for run, title in others.items()}
    chosen = st.multiselect(
        f"Compare {plain(study.title.name)} with",
        list(others),
        default=list(others)[:1],
        format_func=names.__getitem__,
        key="others",
        bind="query-params",
    )
    loaded = [study, *(reading.load(source.uri, others[run], run, at) for run in chosen)]
    studies = {one.title.name: one.runs for one in loaded}
    if len(studies) < 2:
        st.info("Choose another study.")
        return
    # Means over seeds are taken for all settings of all studies, at every choice in the lists.
    if sum(runs.height for runs in studies.values()) > MOST_TRIALS:
        st.info(f"Together they have more than {MOST_TRIALS:,} trials; choose smaller studies.")
        return
    _plot(studies)
    st.subheader("Best of each")
    best = beside(studies)
    table(best)
    st.caption("Values compare only where the protocol is the same.")
    download("CSV", lambda: csv_bytes(best), "compare.csv")
    st.subheader("Settings that differ")
    table(setting_differences(studies))


def _plot(studies: Studies) -> None:
    runs = together(studies)
    results = shared_metrics(studies)
    if len(results) < 2:
        st.info("These studies have no two results in common yet.")
        return
    # x may be any result or setting of one study; y must have been measured in all of them.
    axes = choose_axes(choices(runs), results, default_axes(runs), "compare_")
    try:
        found = scaling(runs, *axes)
    except RequestError as error:
        st.info(f"{plain(str(error).capitalize())}.")
        return
    picture(chart_figure(found.chart, zooms=True), key=f"compare {axes}", keeps=[ZOOM])
    captions(found.notes)
    download("PDF", lambda: pdf_of(found.figure()), "compare.pdf")
