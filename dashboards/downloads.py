"""Buttons that make a file when they are pressed, and not before."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

_TYPES = {"pdf": "application/pdf", "csv": "text/csv"}


def download(label: str, make: Callable[[], bytes], file: str, *, disabled: bool = False) -> None:
    """A button for a file; its suffix says what `make` makes."""
    kind = _TYPES[file.rpartition(".")[2]]
    st.download_button(label, make, file, kind, on_click="ignore", disabled=disabled)
