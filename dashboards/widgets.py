"""Widgets that several views have: axes, captions, files made when a button is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import streamlit as st

from analysis.charts.grammar import FigureData
from gigatok.names import quantity
from gigatok.text.markdown import plain

_TYPES = {"pdf": "application/pdf", "csv": "text/csv"}


def choose_axes(across: Sequence[str], up: Sequence[str], prefix: str = "") -> tuple[str, str]:
    """Show a list for each axis of a chart; `prefix` tells the views' own choices apart."""
    left, right = st.columns(2)
    names = {key: quantity(key).heading for key in (*across, *up)}
    x = left.selectbox("x", across, key=f"{prefix}x", format_func=names.__getitem__)
    # The first results are sizes, which nobody looks at over a size.
    score = next((i for i, key in enumerate(up) if quantity(key).better), 0)
    y = right.selectbox("y", up, score, key=f"{prefix}y", format_func=names.__getitem__)
    return x, y


def captions(lines: Iterable[str]) -> None:
    """Show notes below each other."""
    # Two blanks before a line break keep it in Markdown.
    st.caption("  \n".join(map(plain, lines)))


def open_trial(run_id: str) -> None:
    """Turn to a trial; only before the widgets are made, so in a callback."""
    # Streamlit refuses to set the state of a widget that exists in the same run.
    st.session_state["trial"] = run_id
    st.session_state["view"] = "Trial"


def pdf_of(data: FigureData) -> bytes:
    """Draw a figure as a PDF."""
    from analysis.charts.files import pdf_bytes  # Matplotlib takes a second, which no page pays

    return pdf_bytes(data)


def download(label: str, make: Callable[[], bytes], file: str, *, disabled: bool = False) -> None:
    """Show a button for a file; its suffix says what `make` makes."""
    kind = _TYPES[file.rpartition(".")[2]]
    # A function instead of bytes is called at the press only. "ignore": a download need not run
    # the whole page again.
    st.download_button(label, make, file, kind, on_click="ignore", disabled=disabled)
