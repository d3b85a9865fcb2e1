"""Report and figure of a launch: made by `analysis`, and kept with the run of the sweep in MLflow.

Whatever process ends a launch sends them: the launcher that stays until the end, or the job on the
cluster that looks after the sweep when nobody is logged in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gigatok.startup import for_children
from gigatok.text.credentials import mlflow_variables, without_login
from orchestration.plan.graph import Plan
from orchestration.runs.state import Store
from orchestration.tracking.shipping import default_uri, send_files

SUFFIXES = (".png", ".pdf", ".csv", ".json", ".html")
"""Files of a drawn launch: the figure, its data and their origin, and the report."""


def figure_in(folder: Path, plan: Plan) -> Path:
    """Name the picture of a plan's figure; the other files differ in their suffix."""
    return folder / f"{plan.sweep.name}-{plan.sweep.scale}.png"


def analyse(
    plan: Plan, store: Store, uri: str, words: Sequence[str], environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run a command of `analysis` about a plan, and return what it printed.

    A process of its own: the launcher imports neither matplotlib nor polars, and what fails there
    does not fail the launch.
    """
    action, *options = words
    # Everybody on the machine sees the arguments of a process; its environment, only the user.
    where = ["--runs-dir", str(store.root)]
    where += [] if uri == default_uri(store) else ["--tracking-uri", without_login(uri)]
    command = [sys.executable, "-m", "analysis", action, plan.sweep.name, "--plan", plan.key]
    # Of the code that runs here: the working folder may hold an analysis.py of the user.
    code = for_children(str(Path(__file__).resolve().parents[2]))
    return subprocess.run(
        [*command, *where, *options],
        env={**os.environ, **code, **mlflow_variables(uri), **environment},
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def draw(plan: Plan, store: Store, uri: str, figure: Path) -> bool:
    """Let `analysis` write report and figure; tells whether it did, and prints why not."""
    found = analyse(plan, store, uri, ["report", "--out", str(figure.parent)])
    if found.returncode:
        print(found.stderr, end="", file=sys.stderr)
    return found.returncode == 0 and drawn_plan(figure) == plan.key


def drawn_plan(figure: Path) -> str | None:
    """Read the key of the plan that a figure on disk shows; None: a file of it is missing."""
    try:
        record = json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
        # Every run that the figure shows names its plan; runs of two plans are no launch's figure.
        plans = {run["plan"] for run in record["sources"].values()}
        only = plans.pop() if len(plans) == 1 else None
        whole = all(figure.with_suffix(suffix).stat().st_size > 0 for suffix in SUFFIXES)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # no figure, or files of the same name that are none of ours
    return only if whole else None


def send_drawn(plan: Plan, store: Store, uri: str, figure: Path) -> str | None:
    """Add what was drawn to the run of the sweep; returns why that failed, or None."""
    files = {f"figure{end}": figure.with_suffix(end).read_bytes() for end in SUFFIXES}
    files["report.html"] = files.pop("figure.html")
    return send_files(store, uri, plan, files)


def keep(plan: Plan, store: Store, uri: str) -> str | None:
    """Draw a launch for MLflow alone; returns why its run lacks report and figure, or None."""
    with TemporaryDirectory() as folder:
        figure = figure_in(Path(folder), plan)
        if not draw(plan, store, uri, figure):
            return "there is nothing to draw, or it failed"
        return send_drawn(plan, store, uri, figure)
