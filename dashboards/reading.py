"""Reads of the page, kept until the store changes. Everything that is kept is frozen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from analysis.charts.grammar import Chart
from analysis.figures import curves, scaling
from analysis.figures.scaling import Fitting, Scaling
from analysis.figures.search_history import main_chart, read_search
from analysis.statistics.groups import Group, groups
from analysis.store.opening import open_store
from analysis.store.requests import RequestError
from analysis.store.runs import scored
from analysis.studies import study, trial
from analysis.studies.answer import Answer, answer
from analysis.studies.study import Title, WatchedStudy
from analysis.studies.trial import LoadedTrial
from analysis.tables.folding import brief_labels
from analysis.tables.numbers import Numbers, setting_numbers, trial_numbers
from dashboards.plotting.base import Spec
from dashboards.plotting.charts import chart_figure
from dashboards.source import PageSource

SERVER_SECONDS = 10.0
"""A server does not say when it changed: it is asked again after so long."""
# Entries per function. The store's version is part of every key, so that old ones are never asked
# for again and must be dropped by number.
KEEP = 8
FEW_TRIALS = 1000
MOST_GROUPED = 500
"""Trials up to which results are means over seeds: of more they take seconds."""
# Seconds. A large study takes longer to read and to draw, and is looked at less often.
REFRESH_SECONDS, LARGE_REFRESH_SECONDS = 3.0, 15.0


@dataclass(frozen=True)
class FirstView:
    """Answer of a study, and the figure below it.

    Attributes:
        figure: what is drawn; None: no trial has both coordinates yet.
        notes: what stands below it.
    """

    answer: Answer
    figure: Spec | None
    notes: tuple[str, ...] = ()


def version(uri: str) -> str:
    """Name the state of the store: it changes when the store does.

    Raises:
        RequestError: there is no store, or it does not answer.
    """
    # A database file tells its state; a server is asked again every few seconds.
    stamp = open_store(uri).stamp()
    return f"{time.time() // SERVER_SECONDS}" if stamp is None else stamp[1]


# `cache_resource` and not `cache_data`: the latter pickles every value and copies it at each read,
# which is slow for tables of many trials. All sessions share one object, which is why it must be
# frozen. Arguments that begin with an underscore are no part of the key.
@st.cache_resource(max_entries=KEEP, show_spinner=False)
def titles(uri: str, at: str) -> list[Title]:
    """List every study of the store, newest first; `at` is its version."""
    return study.list_studies(uri)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def load(uri: str, _title: Title, run_id: str, at: str) -> WatchedStudy:
    """Load a study; `run_id` is its title's."""
    return study.load_study(uri, _title)


@st.cache_resource(max_entries=4 * KEEP, show_spinner=False)
def chart(
    _study: WatchedStudy,
    run_id: str,
    at: str,
    x: str,
    y: str,
    published: bool,
    law: Fitting,
    front: bool,
) -> tuple[Scaling, Spec]:
    """Make a scaling chart of a study, as data and as a figure."""
    found = scaling.scaling(_study.runs, x, y, published=published, law=law, front=front)
    return found, chart_figure(found.chart, picks=True, zooms=True)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def usual_axes(_study: WatchedStudy, run_id: str, at: str, metric: str | None) -> tuple[str, str]:
    """Choose the axes over which a study with results is shown first."""
    return scaling.default_axes(_study.runs, metric)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def below_answer(
    _study: WatchedStudy, run_id: str, at: str, metric: str | None
) -> tuple[Scaling, Spec]:
    """Make the chart that a study's sweep chose, as data and as a figure."""
    found = scaling.first_chart(_study.runs, metric)
    return found, chart_figure(found.chart)


def first_view(source: PageSource, study: WatchedStudy, at: str) -> FirstView:
    """Read what the page shows of a study before anything is chosen."""
    run_id = study.title.run_id
    found = answer_of(source.uri, study, run_id, at)
    if not scored(study.runs):
        return FirstView(found, None)
    if (searched := search(source.uri, run_id, at)) is not None:
        shown = main_chart(searched, run_id)
        return FirstView(found, None if shown is None else chart_figure(shown))
    try:
        made, figure = below_answer(study, run_id, at, found.metric)
    except RequestError:
        return FirstView(found, None)
    return FirstView(found, figure, made.notes[:2])


@st.cache_resource(max_entries=4 * KEEP, show_spinner=False)
def one_trial(uri: str, _study: WatchedStudy, trial_run: str, at: str) -> LoadedTrial:
    """Load a trial and its curves."""
    return trial.load_trial(uri, _study.runs, trial_run)


@st.cache_resource(max_entries=4 * KEEP, show_spinner=False)
def pictures_of(
    source: PageSource,
    _rows: Sequence[Mapping[str, object]],
    runs: tuple[str, ...],
    stage: str,
    name: str,
    step: int | None,
    at: str,
) -> list[tuple[str, bytes]]:
    """Read pictures of some trials, `runs` their ids; none that lie outside the runs directory."""
    return trial.pictures(source.uri, _rows, (stage, name), source.runs_dir, step)


@st.cache_resource(max_entries=4 * KEEP, show_spinner=False)
def steps_of(
    source: PageSource, _row: Mapping[str, object], run_id: str, stage: str, name: str, at: str
) -> list[int]:
    """List the steps at which a stage of a trial, `run_id` its id, logged a picture."""
    return trial.picture_steps(source.uri, _row, stage, name)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def search(uri: str, run_id: str, at: str) -> Mapping[str, Any] | None:
    """Read what a search has found; `run_id` is its study's."""
    return read_search(uri, run_id)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def answer_of(uri: str, _study: WatchedStudy, run_id: str, at: str) -> Answer:
    """Answer a study's question."""
    return answer(_study.runs, uri, search(uri, run_id, at))


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def numbers(_study: WatchedStudy, run_id: str, at: str) -> Numbers:
    """Make the result table: a row per setting, of large studies a row per trial."""
    few = _study.runs.height <= MOST_GROUPED
    return setting_numbers(_study.runs) if few else trial_numbers(_study.runs)


@st.cache_resource(max_entries=KEEP, show_spinner=False)
def settings(_study: WatchedStudy, run_id: str, at: str) -> dict[str, Group]:
    """Group the trials of a study over seeds, by a brief name of each setting."""
    found = groups(_study.runs)
    return dict(zip(brief_labels(found), found, strict=True))


@st.cache_resource(max_entries=4 * KEEP, show_spinner=False)
def overlay(
    uri: str,
    _found: Mapping[str, Group],
    names: tuple[str, ...],
    stage: str,
    key: str,
    smoothing: float,
    means: bool,
    at: str,
) -> Chart:
    """Draw a curve of several settings, `names` their names, in one chart."""
    return curves.overlay(_found, stage, key, uri, smoothing, means=means)


@st.cache_resource(max_entries=4 * KEEP, show_spinner=False)
def log_of(uri: str, stage_run: str, within: Path, at: str) -> str | None:
    """Read the end of a failed stage's newest log."""
    return study.log_tail(uri, stage_run, within)


def refresh_seconds(shown: WatchedStudy) -> float | None:
    """Choose how often to look again; None where nothing goes on, nor may begin any moment."""
    # Both are asked: a launch may have been killed while its stages go on, and one that waits has
    # no running stage yet.
    if shown.title.state not in ("WAITING", "RUNNING") and "RUNNING" not in shown.counts:
        return None
    return REFRESH_SECONDS if shown.runs.height <= FEW_TRIALS else LARGE_REFRESH_SECONDS
