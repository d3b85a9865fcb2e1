"""Buttons that make a file when they are pressed, and not before."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from analysis.charts.grammar import FigureData

_TYPES = {"pdf": "application/pdf", "csv": "text/csv"}


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
