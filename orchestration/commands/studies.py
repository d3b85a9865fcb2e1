"""The list of studies that `status` shows without a name."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from rich.text import Text

from gigatok.text.fitting import FittingTable
from orchestration.study.listing import StudyLine
from orchestration.terminal import plain_console

STYLES = {"running": "cyan", "failed": "bold red", "held": "yellow", "complete": "green"}


def show_studies(
    studies: Sequence[StudyLine], runs: Path, scale: str | None = None, *, as_json: bool = False
) -> None:
    """Print a row per study.

    Args:
        studies: the newest launch first.
        runs: where they are.
        scale: show those at this scale only.
        as_json: print JSON instead.
    """
    shown = [one for one in studies if scale in (None, one.scale)]
    if as_json:
        print(json.dumps([asdict(one) for one in shown]))
    elif shown:
        plain_console().print(studies_table(shown, time.time()))
    else:
        at = "" if scale is None else f" at scale {scale}"
        print(f"nothing was launched{at} into {runs}; `--runs-dir` names another folder")


def studies_table(studies: Sequence[StudyLine], now: float) -> FittingTable:
    """Make a row per study; `now` in UNIX seconds tells how old each is."""
    table = FittingTable(
        ("sweep", "scale", "trials", "state", "launched", "ago", "question or answer"),
        right=("trials", "ago"),
        wraps=("question or answer",),
        drops=("launched",),
    )
    for one in studies:
        table.add_row(
            Text(one.sweep, style="bold"),
            one.scale,
            f"{one.complete}/{one.trials}",
            Text(one.state, style=STYLES.get(one.state, "")),
            f"{datetime.fromtimestamp(one.launched):%Y-%m-%d %H:%M}",
            age(now - one.launched),
            Text(one.answer or one.question),
        )
    return table


def age(seconds: float) -> str:
    """Write how long ago something was, in its largest unit."""
    whole = timedelta(seconds=max(0, seconds))
    if whole.days:
        return f"{whole.days} d"
    hours, rest = divmod(whole.seconds, 3600)
    return f"{hours} h" if hours else f"{rest // 60} min"
