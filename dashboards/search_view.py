"""Search: the best trial, what each trial reached, which keys mattered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from analysis.figures.search_history import search_charts
from analysis.studies.answer import values_of, words_of
from analysis.studies.study import WatchedStudy
from dashboards import reading
from dashboards.plotting.charts import chart_figure
from dashboards.plotting.search import search_figure
from dashboards.source import PageSource
from dashboards.widgets import open_trial, picture
from gigatok.names import quantity
from gigatok.text.markdown import plain


def show(source: PageSource, study: WatchedStudy, at: str) -> None:
    """Draw the view."""
    run_id = study.title.run_id
    found = reading.search(source.uri, run_id, at)
    if found is None:
        st.info("This study is no search; a `search` block in its YAML makes one.")
        return
    searched = found["studies"][0]
    _best(study, searched)
    for name in searched["objectives"]:
        if (figure := search_figure(searched, name)) is not None:
            st.subheader(f"Every trial, by {plain(quantity(name).title)}")
            picture(figure, key=f"parallel {name}")
            st.caption(
                "Drag along an axis to keep the trials that cross it there; a click shows all."
            )
    for number, chart in enumerate(search_charts(found, run_id)):
        st.subheader(plain(chart.title))
        picture(chart_figure(chart, height=380), key=f"search {number}")
    if any(len(shares) > 1 for shares in searched["importances"].values()):
        st.caption("Importance: share of the spread of good trials (PED-ANOVA).")


def _best(study: WatchedStudy, searched: Mapping[str, Any]) -> None:
    st.subheader("Best trial" if len(searched["objectives"]) == 1 else "Trials no other beats")
    runs = dict(study.runs.select("trial", "run_id").iter_rows())
    if not searched["best"]:
        st.caption("No trial is complete yet.")
    for one in searched["best"]:
        columns = st.columns([4, 1], vertical_alignment="center")
        columns[0].markdown(f"**{plain(values_of(one))}** with {plain(words_of(one['params']))}")
        if (run_id := runs.get(one["trial"])) is not None:
            columns[1].button(
                "Open the trial",
                key=f"best {one['number']}",
                on_click=open_trial,
                args=(run_id,),
                width="stretch",
            )
