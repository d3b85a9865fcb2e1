"""Trial: its curves, pictures beside those of other sizes, settings, origin, and differences."""

from __future__ import annotations

from typing import Any

import streamlit as st

from analysis import exporting, trial
from analysis.artifacts import Outside
from analysis.charts import Grid
from analysis.study import Study
from analysis.trial import Trial
from dashboards import reading
from dashboards.downloads import download
from dashboards.plotting import curve_figure, uses_figure
from dashboards.source import Source

MOST_SIZES = 6
_HEADS = {
    "reconstructions": "Reconstructions: originals above, reconstructions below",
    "samples": "Samples",
}


def show(source: Source, study: Study, at: str) -> None:
    """Draw the view."""
    names = dict(study.runs.select("run_id", "trial").iter_rows())
    if st.session_state.get("trial") not in names:
        st.session_state.pop("trial", None)  # Of another study; the address may still name one.
    run_id = st.selectbox(
        "Trial", list(names), key="trial", format_func=names.__getitem__, bind="query-params"
    )
    found = reading.one_trial(source.uri, study, run_id, at)
    row = found.row
    bar = st.container(horizontal=True)
    bar.link_button("Open in MLflow", source.run_url(run_id))
    tabs = st.tabs(["Pictures", "Curves", "Codebook", "Results", "Settings", "Origin", "Diff"])
    with tabs[0]:
        grids = _pictures(source, study, run_id)
    with tabs[1]:
        panels = _curves(study, found)
    with tabs[2]:
        _codebook(found)
    with tabs[3]:
        st.dataframe(trial.results(row), hide_index=True, column_config=_wide("protocol"))
    with tabs[4]:
        st.dataframe(trial.settings(row, study.runs), hide_index=True, height=460)
    with tabs[5]:
        _origin(source, study, found)
    with tabs[6]:
        _difference(study, found, names)
    with bar:
        pdf = lambda: exporting.plate_pdf(exporting.trial_plate(found, panels, grids))  # noqa: E731
        download("PDF", pdf, f"{found.name}.pdf", disabled=not panels and not grids)
        download("Curves (CSV)", lambda: exporting.csv_bytes(found.curves), f"{found.name}.csv")


def _pictures(source: Source, study: Study, run_id: str) -> list[Grid]:
    rows = trial.across_sizes(study.runs, run_id, MOST_SIZES)
    ids = tuple(str(row["run_id"]) for row in rows)
    grids = []
    for stage, name in trial.PICTURES:
        st.markdown(f"**{_HEADS[name]}**")
        try:
            found = reading.pictures_of(source, rows, ids, stage, name)
        except Outside as outside:
            st.warning(str(outside))
            continue
        if not found:
            st.caption(f"None yet: {stage} of these trials has not completed.")
            continue
        for column, (head, png) in zip(st.columns(min(3, len(found))) * 2, found, strict=False):
            column.image(png, caption=head, width="stretch", alt=f"{name} of {head}")
        grids.append(Grid(name, tuple((head, {}, png) for head, png in found)))
    return grids


def _curves(study: Study, found: Trial) -> dict[str, list[str]]:
    panels = trial.panels(found, study.stages)
    if not panels:
        st.caption("No stage of this trial has logged a curve yet.")
    for stage, keys in panels.items():
        st.markdown(f"**{stage.replace('_', ' ')}**")
        for start in range(0, len(keys), 3):
            for column, key in zip(st.columns(3), keys[start : start + 3], strict=False):
                points = trial.curve(found, stage, key)
                figure = curve_figure(key, points["step"].to_list(), points["value"].to_list())
                column.plotly_chart(figure, key=f"{stage} {key}", config={"displayModeBar": False})
    return panels


def _codebook(found: Trial) -> None:
    uses = found.code_uses
    if uses.is_empty():
        st.caption(
            "No histogram of codebook usage: extract_codes has not completed, or ran before it "
            "was recorded."
        )
        return
    st.plotly_chart(uses_figure(uses["uses"].to_list(), uses["codes"].to_list()), key="uses")
    st.caption("How many codes are used how often on the validation images; 0: never.")


def _origin(source: Source, study: Study, found: Trial) -> None:
    row = found.row
    dirty = {True: ", with uncommitted changes", False: "", None: ", state unknown"}
    st.markdown(
        f"Code `{row['git_sha'] or 'unknown'}`{dirty[row['git_dirty']]} · plan `{row['plan']}` · "
        f"trial key `{row['trial_key']}`"
    )
    table = trial.provenance(row, study.cells)
    links = [source.run_url(run) if run else None for run in table["stage_run"].to_list()]
    shown = [{**r, "run": link} for r, link in zip(table.to_dicts(), links, strict=True)]
    st.dataframe(
        shown,
        hide_index=True,
        column_order=["stage", "state", "host", "attempts", "seconds", "key", "run"],
        column_config={
            "run": st.column_config.LinkColumn("MLflow run", display_text="open"),
            "seconds": st.column_config.NumberColumn(format="%.1f"),
        },
    )


def _difference(study: Study, found: Trial, names: dict[str, str]) -> None:
    others = [run for run in names if run != found.row["run_id"]]
    if not others:
        st.caption("This study has no other trial.")
        return
    other = st.selectbox("Against", others, key="against", format_func=names.__getitem__)
    table = trial.difference(found.row, trial.row_of(study.runs, other))
    heads = {"this": st.column_config.TextColumn(found.name)}
    heads["other"] = st.column_config.TextColumn(names[other])
    st.dataframe(table, hide_index=True, column_config=heads, height=420)


def _wide(column: str) -> dict[str, Any]:
    return {column: st.column_config.TextColumn(width="large")}
