"""Study: its answer and one figure, then the numbers; how far it is, what failed and why."""

from __future__ import annotations

import streamlit as st

from analysis.figures.sweeps import sweep_figure
from analysis.store.artifacts import Outside
from analysis.store.export import csv_bytes
from analysis.store.runs import scored
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
from dashboards import actions, reading
from dashboards.plotting.bars import STATE_COLOURS, states_figure
from dashboards.source import PageSource
from dashboards.widgets import (
    captions,
    download,
    number_columns,
    opens_trials,
    pdf_of,
    picture,
    table,
)
from dashboards.words import duration, in_words
from gigatok.text.command_lines import command
from gigatok.text.markdown import plain

MOST_FAILURES = 20
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
    over = set(study.counts) <= {"COMPLETE", "PRUNED"}
    if not over:
        _progress(study)
        actions.show(source, study)
    _answer(source, study, at)
    if study.counts.get("RUNNING"):
        _running(study)
    _failures(source, study, at)
    if scored(study.runs):
        _results(study, at)
    whole = sum(study.counts.values())
    done = f"All {whole:,} stages complete" if over else "Stages and times"
    # Made when it is opened: its table of ten thousand trials takes the browser seconds.
    box = st.expander(
        f"{done}: {study.runs.height:,} trials, {duration(study.spent)} of stages",
        expanded=not over and study.runs.height <= reading.FEW_TRIALS,
        key="stages",
        on_change="rerun",
        bind="query-params",
    )
    if box.open:
        with box:
            _stages(study)


def _progress(study: WatchedStudy) -> None:
    left, basis = seconds_left(study)
    parts = [f"{n:,} {in_words(state)}" for state, n in study.counts.items()]
    # A sum of fractions may end a bit above 1, which Streamlit refuses.
    st.progress(min(1.0, study.progress), text=f"{study.progress:.0%} · {', '.join(parts)}")
    st.caption(f"Time left: {duration(left) or 'unknown'} ({plain(basis)})")
    if study.silent is not None:
        look = command("orchestration", "status", study.title.sweep)
        st.warning(
            f"Nothing was heard of the running stages for {duration(study.silent)}: the launcher "
            f"or its host may be gone. `{look}` looks at them itself."
        )


def _answer(source: PageSource, study: WatchedStudy, at: str) -> None:
    found = reading.first_view(source, study, at)
    st.markdown(f"#### {plain(found.answer.headline)}")
    st.markdown("\n".join(f"* {plain(sentence)}" for sentence in found.answer.sentences))
    if found.figure is None:
        return
    picture(found.figure, key="answer")
    if found.notes:
        captions(found.notes)


def _results(study: WatchedStudy, at: str) -> None:
    few = study.runs.height <= reading.MOST_GROUPED
    st.subheader("Results")
    if few:
        numbers = reading.numbers(study, study.title.run_id, at)
        st.caption("Click a row to open its trial, a head to sort. Shaded: best of its column.")
        opens_trials(numbers, "results", number_columns(numbers), best=True)
        with st.expander("How it was measured, and what is missing"):
            captions(result_table(study.runs).notes)
    with st.container(horizontal=True):
        every = lambda: csv_bytes(study.runs)  # noqa: E731
        download("Every trial (CSV)", every, f"{study.title.sweep}.csv")
        if few:
            figure = lambda: pdf_of(sweep_figure(study.runs))  # noqa: E731
            download("Figure (PDF)", figure, f"{study.title.sweep}.pdf")
    if not few:
        box = st.expander("Numbers of every trial", key="numbers", on_change="rerun")
        if box.open:
            with box:
                numbers = reading.numbers(study, study.title.run_id, at)
                opens_trials(numbers, "results", number_columns(numbers))


def _running(study: WatchedStudy) -> None:
    st.subheader("Running now")
    columns = {
        "part": st.column_config.ProgressColumn("progress", format="percent"),
        "left": st.column_config.NumberColumn("seconds left", format="%.0f"),
        "heard": st.column_config.NumberColumn("seconds since heard", format="%.0f"),
    }
    table(running_now(study), column_config=columns)


def _failures(source: PageSource, study: WatchedStudy, at: str) -> None:
    if not study.failures:
        return
    st.subheader(f"Failures ({len(study.failures):,})")
    for failure in study.failures[:MOST_FAILURES]:
        _failure(source, study.title.experiment, failure, at)
    if len(study.failures) > MOST_FAILURES:
        st.caption(f"… and {len(study.failures) - MOST_FAILURES:,} more, in the table below.")


def _failure(source: PageSource, experiment: str, failure: StageFailure, at: str) -> None:
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
        st.link_button("Open in MLflow", source.run_url(experiment, failure.stage_run))


def _stages(study: WatchedStudy) -> None:
    counts, whole = study.counts, study.title.predicted
    columns = st.columns(4)
    columns[0].metric("Trials", f"{study.runs.height:,}")
    # Distinct stages, not cells: work that trials share is done once.
    done = f"{counts.get('COMPLETE', 0):,} of {sum(counts.values()):,}"
    columns[1].metric("Stages complete", done)
    columns[2].metric("Failed", f"{counts.get('FAILED', 0):,}")
    columns[3].metric(
        "Spent of predicted" if whole else "Spent",
        duration(study.spent) + (f" / {duration(whole)}" if whole else ""),
        help="All stages together, each counted once; predicted when the study was launched",
    )
    st.caption(f"Spent against predicted: {plain(spent_against_predicted(study))}.")
    picture(states_figure(study), key="states")
    _trials(study)
    st.markdown("**Time of each kind of stage**")
    times = {
        name: st.column_config.NumberColumn(label, format=form)
        for name, (label, form) in _TIMES.items()
    }
    table(stage_times(study), column_config=times)


def _trials(study: WatchedStudy) -> None:
    st.caption("Click a row to open the trial.")
    # Streamlit colours the options of a multi-select column: a state in a list of its own becomes
    # a coloured pill.
    pills = state_pills(study)
    words = [in_words(state) for state in STATE_COLOURS]
    colours = list(STATE_COLOURS.values())
    config = {
        stage: st.column_config.MultiselectColumn(in_words(stage), options=words, color=colours)
        for stage in ("state", *study.stages)
    }
    shown = pills.select("run_id", "trial", "state", *study.stages, "why")
    opens_trials(shown, "trials", config)
    states = f"{study.title.sweep}-states.csv"
    download("States (CSV)", lambda: csv_bytes(state_table(study)), states)
