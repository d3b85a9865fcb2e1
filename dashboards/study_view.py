"""Study: the question, how far it is, what failed and why."""

from __future__ import annotations

import streamlit as st

from analysis.figures.sweeps import sweep_figure
from analysis.store.artifacts import Outside
from analysis.store.export import csv_bytes
from analysis.store.runs import measured
from analysis.studies.study import (
    StageFailure,
    WatchedStudy,
    running_now,
    seconds_left,
    spent_against_predicted,
    stage_times,
    state_pills,
    state_table,
)
from analysis.tables.results import result_table
from dashboards import reading
from dashboards.plotting import STATE_COLOURS, states_figure
from dashboards.source import PageSource
from dashboards.widgets import captions, download, open_trial, pdf_of
from dashboards.words import duration, in_words
from gigatok.text.command_lines import command
from gigatok.text.markdown import plain

MOST_FAILURES = 20
MOST_RESULTS = 500
"""Trials up to which the table of results, means over seeds, is shown."""
_TIMES = {
    "mean": ("mean seconds", "%.1f"),
    "total": ("total seconds", "%.0f"),
    "predicted": ("predicted seconds", "%.0f"),
    "actual": ("actual seconds, of the predicted ones", "%.0f"),
    "ratio": ("actual / predicted", "%.2f"),
}
"""Columns of `stage_times`: heading and format."""


def show(source: PageSource, study: WatchedStudy, at: str) -> None:
    """Draw the view."""
    _headline(study)
    if study.counts.get("RUNNING"):
        _running(study)
    _failures(source, study, at)
    st.subheader("Stages")
    st.plotly_chart(states_figure(study), key="states", config={"displayModeBar": False})
    _trials(study)
    _results(study)
    with st.expander("Time of each kind of stage"):
        columns = {
            name: st.column_config.NumberColumn(label, format=form)
            for name, (label, form) in _TIMES.items()
        }
        st.dataframe(stage_times(study), hide_index=True, column_config=columns)


def _headline(study: WatchedStudy) -> None:
    counts = study.counts
    failed = counts.get("FAILED", 0)
    left, basis = seconds_left(study)
    # Distinct stages, not cells: work that trials share is done once.
    total = sum(counts.values())
    columns = st.columns(5)
    columns[0].metric("Trials", f"{study.runs.height:,}")
    columns[1].metric("Stages complete", f"{counts.get('COMPLETE', 0):,} of {total:,}")
    columns[2].metric("Failed", f"{failed:,}")
    columns[3].metric("Time left", duration(left) or "unknown", help=plain(basis))
    whole = study.title.predicted
    columns[4].metric(
        "Spent of predicted" if whole else "Spent",
        duration(study.spent) + (f" / {duration(whole)}" if whole else ""),
        help="All stages together, each counted once; predicted when the study was launched",
    )
    parts = [f"{n:,} {in_words(state)}" for state, n in counts.items()]
    # A sum of fractions may end a bit above 1, which Streamlit refuses.
    st.progress(min(1.0, study.progress), text=f"{study.progress:.0%} · {', '.join(parts)}")
    if left is None or left > 0:
        st.caption(f"Time left: {duration(left) or 'unknown'}; {plain(basis)}.")
    st.caption(f"Spent against predicted: {plain(spent_against_predicted(study))}.")
    if study.silent is not None:
        look = command("orchestration", "status", study.title.sweep)
        st.warning(
            f"Nothing was heard of the running stages for {duration(study.silent)}: the launcher "
            f"or its host may be gone. `{look}` looks at them itself."
        )


def _running(study: WatchedStudy) -> None:
    st.subheader("Running now")
    columns = {
        "part": st.column_config.ProgressColumn("progress", format="percent"),
        "left": st.column_config.NumberColumn("seconds left", format="%.0f"),
        "heard": st.column_config.NumberColumn("seconds since heard", format="%.0f"),
    }
    st.dataframe(running_now(study), hide_index=True, column_config=columns)


def _failures(source: PageSource, study: WatchedStudy, at: str) -> None:
    if not study.failures:
        return
    st.subheader(f"Failures ({len(study.failures):,})")
    for failure in study.failures[:MOST_FAILURES]:
        _failure(source, failure, at)
    if len(study.failures) > MOST_FAILURES:
        st.caption(f"… and {len(study.failures) - MOST_FAILURES:,} more, in the table below.")


def _failure(source: PageSource, failure: StageFailure, at: str) -> None:
    of = ", ".join(failure.trials[:3]) + (" …" if len(failure.trials) > 3 else "")
    st.error(f"**{plain(failure.stage)}** of {plain(of)}: {plain(failure.reason)}")
    where = f" on {plain(failure.host)}" if failure.host else ""
    with st.expander(f"Last log lines (attempt {failure.attempts}{where})"):
        try:
            tail = reading.log_of(source.uri, failure.stage_run, source.runs_dir, at)
        except Outside as outside:
            # Said in the place of the log: the rest of the page is not affected.
            tail = str(outside)
        st.code(tail or "no log was sent", language=None)
        st.link_button("Open in MLflow", source.run_url(failure.stage_run))


def _trials(study: WatchedStudy) -> None:
    st.subheader("Trials")
    st.caption("Select a row to open the trial.")
    # Streamlit colours the options of a multi-select column: a state in a list of its own becomes
    # a coloured pill.
    pills = state_pills(study)
    words = [in_words(state) for state in STATE_COLOURS]
    colours = list(STATE_COLOURS.values())
    config = {
        stage: st.column_config.MultiselectColumn(in_words(stage), options=words, color=colours)
        for stage in ("state", *study.stages)
    }
    st.dataframe(
        pills,
        hide_index=True,
        column_order=["trial", "state", *study.stages, "why"],
        column_config={**config, "trial": st.column_config.TextColumn(pinned=True)},
        on_select=lambda: _select(study),
        selection_mode="single-row",
        key="trials",
        # Pixels: Streamlit's rows are 35 high; 40 are for the head.
        height=min(460, 40 + 35 * max(1, pills.height)),
    )
    states = f"{study.title.sweep}-states.csv"
    download("States (CSV)", lambda: csv_bytes(state_table(study)), states)


def _select(study: WatchedStudy) -> None:
    rows = st.session_state["trials"]["selection"]["rows"]
    if rows:
        open_trial(str(study.runs["run_id"][rows[0]]))


def _results(study: WatchedStudy) -> None:
    if not measured(study.runs):
        return
    st.subheader("Results")
    few = study.runs.height <= MOST_RESULTS
    if few:
        table = result_table(study.runs)
        rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
        st.dataframe(rows, hide_index=True)
        captions(table.notes)
    with st.container(horizontal=True):
        every = lambda: csv_bytes(study.runs)  # noqa: E731
        download("Every trial (CSV)", every, f"{study.title.sweep}.csv")
        if few:
            figure = lambda: pdf_of(sweep_figure(study.runs))  # noqa: E731
            download("Figure (PDF)", figure, f"{study.title.sweep}.pdf")
