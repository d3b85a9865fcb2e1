"""State in the page's address: view, study and trial. A link shows the same again."""

from __future__ import annotations

import streamlit as st

VIEWS = ("Study", "Scaling", "Trial", "Compare")


def open_trial(run_id: str) -> None:
    """Turn to a trial; only before the widgets are made, so in a callback."""
    # Streamlit refuses to set the state of a widget that exists in the same run.
    st.session_state["trial"] = run_id
    st.session_state["view"] = "Trial"
