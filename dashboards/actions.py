"""Stop and retry from the page: the commands `cancel` and `resume`, for whoever has the token.

The page listens on this machine only, and Streamlit refuses connections that a page of another
origin opens (`host_names`). The token keeps out other users of this machine.
"""

from __future__ import annotations

import hmac
import os
import subprocess
import sys
import time
from pathlib import Path

import streamlit as st

from analysis.studies.study import WatchedStudy
from dashboards.source import PageSource
from gigatok.startup import for_children
from gigatok.text.markdown import plain

STOP_SECONDS = 60.0
BEGIN_SECONDS = 120.0
"""How long a launch may take from the press to its first sign in the store."""
LOG = "page.log"
"""File in the runs directory with the output of what the page started."""
_TOKEN, _SAID, _BEGUN = "token", "said_by_action", "begun_by_action"
_CODE = str(Path(__file__).resolve().parents[1])


def take_token() -> None:
    """Move the token from the page's address to the session: addresses are sent to others."""
    if _TOKEN in st.query_params:
        st.session_state[_TOKEN] = st.query_params[_TOKEN]
        del st.query_params[_TOKEN]


def show(source: PageSource, study: WatchedStudy) -> None:
    """Offer to stop what runs, or to retry what did not complete, where that is allowed."""
    given = str(st.session_state.get(_TOKEN, ""))
    if not source.token or not hmac.compare_digest(given.encode(), source.token.encode()):
        return
    has_running = bool(study.counts.get("RUNNING"))
    with st.container(horizontal=True):
        # A launcher that was killed leaves its sweep running: then both are offered, and a retry
        # leaves alone what another launch runs.
        if has_running or study.title.state == "RUNNING":
            with st.popover("Stop"):
                st.caption("Running stages save a checkpoint first, and Retry goes on from it.")
                st.button("Stop the sweep", on_click=_stop, args=(source, study))
        if not has_running:
            st.button("Retry what did not complete", on_click=_retry, args=(source, study))
    if said := st.session_state.get(_SAID):
        st.info(plain(said))


def is_awaited() -> bool:
    """Tell whether a retry was asked for a moment ago, and may not be in the store yet."""
    begun = float(st.session_state.get(_BEGUN, "-inf"))
    return time.monotonic() - begun < BEGIN_SECONDS


def command_line(source: PageSource, study: WatchedStudy, *words: str) -> list[str]:
    """Write the command that acts on a study."""
    where = ["--runs-dir", str(source.runs_dir), "--scale", study.title.scale]
    # Behind `--` a name is never read as an option.
    return [sys.executable, "-m", "orchestration", *words, *where, "--", study.title.sweep]


def _stop(source: PageSource, study: WatchedStudy) -> None:
    # It only leaves a mark for the workers, which stop at their next heartbeat.
    line = command_line(source, study, "cancel", "--wait", "0")
    try:
        done = subprocess.run(
            line,
            env=_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=STOP_SECONDS,
        )
        _say(done.stdout + done.stderr)
    except subprocess.TimeoutExpired:
        _say(f"no answer within {STOP_SECONDS:g} s")


def _retry(source: PageSource, study: WatchedStudy) -> None:
    log = source.runs_dir / LOG
    line = command_line(source, study, "resume", "--failed", "--yes")
    with log.open("ab") as output:
        # A session of its own: it goes on when the page ends.
        subprocess.Popen(
            line,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    st.session_state[_BEGUN] = time.monotonic()
    _say(f"A launch has begun; {log} has its output.")


def _environment() -> dict[str, str]:
    return {**os.environ, **for_children(_CODE)}


def _say(text: str) -> None:
    st.session_state[_SAID] = text.strip()
