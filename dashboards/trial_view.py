"""Trial: its curves, pictures beside those of others, settings, origin, and differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import streamlit as st

from analysis.charts.grammar import FigureData, Grid
from analysis.figures.curves import curve_chart, trial_figure
from analysis.statistics.groups import short
from analysis.store.artifacts import Outside
from analysis.store.export import csv_bytes
from analysis.studies import trial
from analysis.studies.study import WatchedStudy
from analysis.studies.trial import LoadedTrial
from dashboards import reading
from dashboards.plotting.bars import uses_figure
from dashboards.plotting.curves import curve_figure
from dashboards.source import PageSource
from dashboards.widgets import download, pdf_of, picture, table
from dashboards.words import in_words
from gigatok.names import PARAM_TOKENIZER
from gigatok.text.markdown import plain

Rows = Sequence[Mapping[str, Any]]
MOST_BESIDE = 6
MOST_OFFERED = 500
"""Trials that a list holds; of more, the browser is slow to make it."""
_RESULTS = {"protocol": st.column_config.TextColumn(width="large")}
_PICTURES = {
    **dict(zip(trial.PICTURES, ("Reconstructions: originals above", "Samples"), strict=True)),
    trial.PICTURES_OF_TRAINING: "Training images as the tokenizer learns: originals above",
}
"""Stage and name of the pictures, and what stands over them."""


def show(source: PageSource, study: WatchedStudy, at: str) -> None:
    """Draw the view."""
    names = dict(study.runs.select("run_id", "trial").iter_rows())
    if st.session_state.get("trial") not in names:
        st.session_state.pop("trial", None)  # Of another study; the address may still name one.
    offered = _offered(names, st.session_state.get("trial"), "find")
    run_id = st.selectbox(
        "Trial", offered, key="trial", format_func=names.__getitem__, bind="query-params"
    )
    found = reading.one_trial(source.uri, study, run_id, at)
    row = found.row
    # Filled at the end as well: the buttons stand above what they depend on.
    bar = st.container(horizontal=True)
    bar.link_button("Open in MLflow", source.run_url(study.title.experiment, run_id))
    parts: dict[str, Callable[[], object]] = {
        "Pictures": lambda: _pictures(source, study, run_id, at),
        "Curves": lambda: _curves(study, found),
        "Codebook": lambda: _codebook(found),
        "Results": lambda: table(trial.results(row), column_config=_RESULTS),
        "Settings": lambda: table(trial.settings(row, study.runs), height=460),
        "Origin": lambda: _origin(source, study, found),
        "Diff": lambda: _difference(study, found, names),
    }
    # A part is made when it is looked at: that of thousands of trials takes time in the browser.
    # "rerun": otherwise the browser turns the tabs by itself and `open` is always None.
    tabs = st.tabs(list(parts), key="part", on_change="rerun", bind="query-params")
    for tab, draw in zip(tabs, parts.values(), strict=True):
        if tab.open:
            with tab:
                draw()
    with bar:
        panels = trial.panels(found, study.stages)
        pdf = lambda: pdf_of(_figure(source, study, found, at))  # noqa: E731
        download("PDF", pdf, f"{found.name}.pdf", disabled=not panels)
        download("Curves (CSV)", lambda: csv_bytes(found.curves), f"{found.name}.csv")


def _offered(names: Mapping[str, str], chosen: str | None, key: str) -> list[str]:
    """Choose the runs that a list offers: all of a few, else the first of what is looked for."""
    if len(names) <= MOST_OFFERED:
        return list(names)
    said = f"Find one of {len(names):,} trials"
    wanted = st.text_input(said, key=key, placeholder=f"Part of a name; {MOST_OFFERED} are listed")
    found = [run for run, name in names.items() if wanted.lower() in name.lower()]
    # The chosen one stays on the list: a select box whose value is missing turns to its first
    # option.
    kept = [chosen] if chosen is not None and chosen in names else []
    return list(dict.fromkeys([*kept, *found[:MOST_OFFERED]]))


def _figure(source: PageSource, study: WatchedStudy, found: LoadedTrial, at: str) -> FigureData:
    """Join curves and pictures in one figure; those that lie elsewhere are left out."""
    grids = []
    for stage, name in trial.PICTURES:
        with suppress(Outside):  # the page says so where it shows pictures
            rows = _beside(study, str(found.row["run_id"]))
            if pictures := _found_pictures(source, rows, (stage, name), None, at):
                grids.append(Grid(name, tuple((head, {}, png) for head, png in pictures)))
    return trial_figure(found, trial.panels(found, study.stages), grids)


def _beside(study: WatchedStudy, run_id: str) -> Sequence[Mapping[str, Any]]:
    """Select the trials that differ from one in the key of the list alone."""
    keys = trial.varied_keys(study.runs)
    chosen = st.session_state.get("beside")
    key = chosen if chosen in keys else next(iter(keys), PARAM_TOKENIZER)
    return trial.differing_in(study.runs, run_id, key, MOST_BESIDE)


def _found_pictures(
    source: PageSource, rows: Rows, picture: tuple[str, str], step: int | None, at: str
) -> list[tuple[str, bytes]]:
    ids = tuple(str(row["run_id"]) for row in rows)
    return reading.pictures_of(source, rows, ids, *picture, step, at)


def _pictures(source: PageSource, study: WatchedStudy, run_id: str, at: str) -> None:
    keys = trial.varied_keys(study.runs)
    if keys:
        said = "Beside the trials that differ in this key alone"
        st.selectbox(said, keys, key="beside", format_func=short, bind="query-params")
    rows = _beside(study, run_id)
    for (stage, name), head in _PICTURES.items():
        st.markdown(f"**{head}**")
        try:
            step = _step(source, trial.row_of(study.runs, run_id), stage, name, at)
            found = _found_pictures(source, rows, (stage, name), step, at)
        except Outside as outside:
            st.warning(plain(outside))
            continue
        if not found:
            st.caption(f"None yet: {stage} of these trials has not completed.")
            continue
        # Two rows of three, as `MOST_BESIDE` is six: a column that is filled twice stacks its
        # pictures. A single one takes half of the page: its pixels are few.
        columns = st.columns(min(3, max(2, len(found)))) * 2
        for column, (of, png) in zip(columns, found, strict=False):
            column.image(png, caption=plain(of), width="stretch", alt=f"{name} of {of}")


def _step(
    source: PageSource, row: Mapping[str, Any], stage: str, name: str, at: str
) -> int | None:
    """Choose a step where a stage logged several pictures; None: the newest."""
    steps = reading.steps_of(source, row, str(row["run_id"]), stage, name, at)
    if len(steps) < 2:
        return None
    said, key = f"Step of {in_words(stage)}", f"step_{stage}_{name}"
    return st.select_slider(said, steps, steps[-1], key=key, bind="query-params")


def _curves(study: WatchedStudy, found: LoadedTrial) -> None:
    panels = trial.panels(found, study.stages)
    if not panels:
        st.caption("No stage of this trial has logged a curve yet.")
    for stage, keys in panels.items():
        st.markdown(f"**{plain(in_words(stage))}**")
        for start in range(0, len(keys), 3):
            for column, key in zip(st.columns(3), keys[start : start + 3], strict=False):
                chart = curve_chart(found, stage, key)
                # Two stages may log curves of one name; Streamlit refuses equal keys.
                with column:
                    picture(curve_figure(chart, chart.y.label), key=f"{stage} {key}")


def _codebook(found: LoadedTrial) -> None:
    uses = found.code_uses
    if uses.is_empty():
        st.caption(
            "No histogram of codebook usage: extract_codes has not completed, or ran before it "
            "was recorded."
        )
        return
    picture(uses_figure(uses["uses"].to_list(), uses["codes"].to_list()), key="uses")
    st.caption("How many codes are used how often on the validation images; 0: never.")


def _origin(source: PageSource, study: WatchedStudy, found: LoadedTrial) -> None:
    row = found.row
    dirty = {True: ", with uncommitted changes", False: "", None: ", state unknown"}
    st.markdown(
        f"Code {plain(row['git_sha'] or 'unknown')}{dirty[row['git_dirty']]} · "
        f"plan {plain(row['plan'])} · trial key {plain(row['trial_key'])}"
    )
    stages = trial.provenance(row, study.cells)
    url = partial(source.run_url, study.title.experiment)
    links = [url(run) if run else None for run in stages["stage_run"].to_list()]
    shown = [{**r, "run": link} for r, link in zip(stages.to_dicts(), links, strict=True)]
    table(
        shown,
        column_order=["stage", "state", "host", "attempts", "seconds", "key", "run"],
        column_config={
            "run": st.column_config.LinkColumn("MLflow run", display_text="open"),
            "seconds": st.column_config.NumberColumn(format="%.1f"),
        },
    )


def _difference(study: WatchedStudy, found: LoadedTrial, names: dict[str, str]) -> None:
    others = {run: name for run, name in names.items() if run != found.row["run_id"]}
    if not others:
        st.caption("This study has no other trial.")
        return
    offered = _offered(others, st.session_state.get("against"), "find_other")
    other = st.selectbox(
        "Against", offered, key="against", format_func=names.__getitem__, bind="query-params"
    )
    differing = trial.difference(found.row, trial.row_of(study.runs, other))
    heads = {"this": found.name, "other": names[other]}
    table(differing, column_config=heads, height=420)
