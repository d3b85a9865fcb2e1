"""The live page: Streamlit runs this file from top to bottom at every interaction."""

from __future__ import annotations

import sys

import streamlit as st

from analysis.store.requests import RequestError
from analysis.studies.study import Title, WatchedStudy
from dashboards import (
    actions,
    compare_view,
    curves_view,
    reading,
    scaling_view,
    search_view,
    study_view,
    trial_view,
)
from dashboards.source import PageSource, parse
from dashboards.words import in_words
from gigatok.text.command_lines import command
from gigatok.text.credentials import shown
from gigatok.text.markdown import plain

# View, study and trial are in the page's address: a link shows the same again. (A comment:
# Streamlit would print a text that stands alone in this file.)
VIEWS = ("Study", "Scaling", "Curves", "Search", "Trial", "Compare")
_STYLE = """<style>
.block-container {padding-top: 2.2rem; padding-bottom: 2rem;}
[data-testid="stMetricValue"] {font-size: 1.5rem;}
h1 {font-size: 1.8rem !important;}
[data-testid="stCaptionContainer"] {color: inherit !important; opacity: .8;}
[data-testid="stMultiSelect"] :has(> span[title])
  {background: rgba(128, 128, 128, .25) !important; color: inherit !important;}
@media (max-width: 640px) {
  .block-container {padding-left: .8rem; padding-right: .8rem;}
  h1 {font-size: 1.4rem !important;}
}
</style>"""


def main() -> None:
    """Choose a study and a view, and draw it; say in words what is missing."""
    st.set_page_config("Scaling studies", layout="wide", initial_sidebar_state="collapsed")
    st.html(_STYLE)
    # At every run of the script; nothing is kept between two but caches and the session's state.
    source = parse(sys.argv[1:])
    actions.take_token()
    try:
        _page(source)
    except RequestError as error:
        st.title("Nothing to show")
        st.info(plain(error))
        st.caption(f"Store: {plain(shown(source.uri))}. This page looks again every few seconds.")
        _look_again(source)


def _page(source: PageSource) -> None:
    # Read once and handed to every view: all parts of a page show the same state of the store.
    at = reading.version(source.uri)
    titles = reading.titles(source.uri, at)
    if not titles:
        raise RequestError(
            f"{shown(source.uri)} holds no study yet; "
            f"`{command('orchestration.launch', 'SWEEP')}` makes one"
        )
    title = _choose(titles)
    study = reading.load(source.uri, title, title.run_id, at)
    view = st.segmented_control(
        "View",
        [name for name in VIEWS if name != "Search" or title.is_search],
        default=VIEWS[0],
        key="view",
        required=True,
        bind="query-params",
        label_visibility="collapsed",
    )
    if view == "Study":
        # A fragment: Streamlit runs only this part again, not the whole page.
        _live(source, title, _refresh_seconds(study))
        return
    if view == "Scaling":
        scaling_view.show(source, study, at)
    elif view == "Curves":
        curves_view.show(source, study, at)
    elif view == "Search":
        search_view.show(source, study, at)
    elif view == "Trial":
        trial_view.show(source, study, at)
    else:
        compare_view.show(source, study, titles, at)
    # These views are not redrawn by the clock: they look for changes, and only then does the page
    # run again.
    if (seconds := reading.refresh_seconds(study)) is not None:
        st.fragment(_follow, run_every=seconds)(source, at)


def _choose(titles: list[Title]) -> Title:
    """Choose the study of the page's address, else the newest."""
    known = {title.run_id: title for title in titles}
    if st.session_state.get("study") not in known:
        st.session_state.pop("study", None)  # Gone from the store; the address may name another.
    names = {run: title.name for run, title in known.items()}
    run_id = st.selectbox(
        "Study",
        list(known),
        key="study",
        format_func=names.__getitem__,
        bind="query-params",
        label_visibility="collapsed",
    )
    title = known[run_id]
    st.title(plain(title.question or title.sweep), anchor=False)
    st.caption(plain(f"{title.sweep} at scale {title.scale} · {in_words(title.state)}"))
    return title


def _live(source: PageSource, title: Title, seconds: float | None) -> None:
    """Show the study's view, which draws itself again while the study runs."""

    def draw() -> None:
        # A click on a row turned to the trial; a fragment alone would draw this view again.
        if st.session_state["view"] != VIEWS[0]:
            st.rerun()
        try:
            look()
        except RequestError as error:  # Away for a moment: the next look may succeed.
            st.info(plain(error))

    def look() -> None:
        at = reading.version(source.uri)
        # The title has the state of the launch, which changes while the page is open.
        now = {t.run_id: t for t in reading.titles(source.uri, at)}.get(title.run_id, title)
        study: WatchedStudy = reading.load(source.uri, now, now.run_id, at)
        # It has ended: its name in the list says so, and nothing needs redrawing. Or it begins
        # again, and this view is to be redrawn from now on.
        if (seconds is None) != (_refresh_seconds(study) is None):
            st.rerun()
        study_view.show(source, study, at)

    st.fragment(draw, run_every=seconds)()


def _refresh_seconds(study: WatchedStudy) -> float | None:
    """Choose how often to draw again: also while a retry was asked for and has not begun yet."""
    awaited = reading.REFRESH_SECONDS if actions.is_awaited() else None
    return reading.refresh_seconds(study) or awaited


def _follow(source: PageSource, seen: str) -> None:
    """Draw the page again when the store has changed since."""
    try:
        changed = reading.version(source.uri) != seen
    except RequestError as error:
        st.info(plain(error))
        return
    if changed:
        st.rerun()


def _look_again(source: PageSource) -> None:
    def look() -> None:
        try:
            # A failing store fails quietly here: the page above says already what is wrong.
            found = bool(reading.titles(source.uri, reading.version(source.uri)))
        except RequestError:
            return
        if found:
            st.rerun()

    st.fragment(look, run_every=reading.REFRESH_SECONDS)()


# No `__main__` guard: Streamlit runs the file as a script of its own, at every interaction.
main()
