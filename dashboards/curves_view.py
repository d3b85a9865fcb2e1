"""Curves: what stages logged over their steps, of several settings in one chart."""

from __future__ import annotations

import streamlit as st

from analysis.statistics.estimates import INTERVALS
from analysis.statistics.usual import folded_keys, usual_note, usual_values
from analysis.studies import trial
from analysis.studies.study import WatchedStudy
from dashboards import reading
from dashboards.plotting.charts import ZOOM
from dashboards.plotting.curves import overlay_figure
from dashboards.source import PageSource
from dashboards.widgets import ZOOMS, captions, picture
from dashboards.words import in_words
from gigatok.names import GUIDANCE_PREFIX, TRAIN_PREFIX

MOST_TRIALS = 500
"""Trials of a study up to which its settings are offered."""
MOST_SETTINGS = 12
"""Settings that are drawn at first; a reader may choose others."""


def show(source: PageSource, study: WatchedStudy, at: str) -> None:
    """Draw the view."""
    if study.runs.height > MOST_TRIALS:
        st.info(f"Curves are drawn together up to {MOST_TRIALS} trials; choose a trial in Trial.")
        return
    keys = _keys(source, study, at)
    if not keys:
        st.info("No stage has logged a curve yet.")
        return
    top = st.columns([3, 2, 1, 1, 1], vertical_alignment="bottom")
    chosen = top[0].selectbox("Curve", list(keys), key="curve", bind="query-params")
    smoothing = top[1].slider("Smoothing", 0.0, 0.99, 0.0, key="smoothing", bind="query-params")
    means = top[2].toggle("Mean", value=True, key="means", bind="query-params", help="Over seeds")
    log_x = top[3].toggle("log x", key="log_x", bind="query-params")
    log_y = top[4].toggle("log y", key="log_y", bind="query-params")
    found = reading.settings(study, study.title.run_id, at)
    wanted = st.multiselect(
        "Settings",
        list(found),
        default=list(found)[:MOST_SETTINGS],
        key="settings",
        bind="query-params",
    )
    drawn = {name: group for name, group in found.items() if name in wanted}
    stage, key = keys[chosen]
    chart = reading.overlay(source.uri, drawn, tuple(drawn), stage, key, smoothing, means, at)
    if not chart.marks:
        st.info("None of these settings has logged this curve yet.")
        return
    figure = overlay_figure(chart, log_x=log_x, log_y=log_y)
    picture(figure, key=f"overlay {stage} {key} {log_x} {log_y}", keeps=[ZOOM])
    kinds = {mark.y_bar.kind for mark in chart.marks if mark.y_bar}
    words = [f"Band: {said}" for kind, said in INTERVALS.items() if kind in kinds]
    every = tuple(found.values())
    folded = folded_keys(every)
    unsaid = [usual_note(usual_values(every, folded))] if folded else []
    captions([*unsaid, *words, f"{ZOOMS} A click in the legend hides a curve."])


def _keys(source: PageSource, study: WatchedStudy, at: str) -> dict[str, tuple[str, str]]:
    """Name the curves that the first trial with any has: those of validation first."""
    for run_id in study.runs["run_id"].head(MOST_SETTINGS):
        panels = trial.panels(reading.one_trial(source.uri, study, run_id, at), study.stages)
        named = {
            f"{in_words(stage)}: {key}": (stage, key)
            for stage, keys in panels.items()
            for key in keys
        }
        if named:
            return dict(sorted(named.items(), key=lambda one: _rank(one[1][1])))
    return {}


def _rank(key: str) -> int:
    """Order curves: validation, which training does not see, then the loss, then all else."""
    if not key.startswith((TRAIN_PREFIX, GUIDANCE_PREFIX)):
        return 0
    return 1 if key == f"{TRAIN_PREFIX}loss" else 2
