"""Report and figure of a launch: made by `analysis`, and kept with the run of the sweep in MLflow.

Whatever ends a launch sends them. A launcher that shows its results has them on disk and calls
`send_drawn`; all others call `keep`: launches from Python or with `--json`, searches, the job on
the cluster that looks after a sweep when nobody is logged in, and `sync`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gigatok.startup import for_children
from gigatok.text.credentials import mlflow_variables, without_login
from orchestration.plan.graph import Plan
from orchestration.runs.state import Store
from orchestration.tracking.shipping import default_uri, has_file, send_files

SUFFIXES = (".png", ".pdf", ".csv", ".json", ".html")
"""Files of a drawn launch: the figure, its data and their origin, and the report."""


def figure_in(folder: Path, plan: Plan) -> Path:
    """Name the picture of a plan's figure; the other files differ in their suffix."""
    return folder / f"{plan.sweep.name}-{plan.sweep.scale}.png"


_prepared: list[subprocess.Popen[str]] = []
"""Process that waits for `analyse`, or none."""


def prepare() -> None:
    """Start the process of the next `analyse`: it takes a second to import what it draws with.

    Where nothing is analysed, it ends with this process.
    """
    if not _prepared:
        _prepared.append(_start())


def analyse(
    plan: Plan, store: Store, uri: str, words: Sequence[str], environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run a command of `analysis` about a plan, and return what it printed.

    A process of its own: the launcher imports neither matplotlib nor polars, and what fails there
    does not fail the launch.
    """
    action, *options = words
    where = ["--runs-dir", str(store.root)]
    where += [] if uri == default_uri(store) else ["--tracking-uri", without_login(uri)]
    told = {
        "words": [action, plan.sweep.name, "--plan", plan.key, *where, *options],
        # As they are now: a program may have moved since it prepared this.
        "folder": os.getcwd(),
        "variables": {**os.environ, **mlflow_variables(uri), **environment},
    }
    process = _prepared.pop() if _prepared else _start()
    if process.poll() is not None:
        process = _start()  # a Ctrl-C at the end of a launch reaches it as well
    with process:
        try:
            # On its input: everybody on the machine sees the arguments of a process.
            output, errors = process.communicate(json.dumps(told) + "\n")
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _start() -> subprocess.Popen[str]:
    # Of the code that runs here: the working folder may hold an analysis.py of the user.
    code = for_children(str(Path(__file__).resolve().parents[2]))
    return subprocess.Popen(
        [sys.executable, "-m", "analysis.waiting"],
        env={**os.environ, **code},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


@dataclass(frozen=True)
class Drawing:
    """End of a process that was to write report and figure.

    Attributes:
        answer: what it printed; None: it failed.
        is_whole: all files of the figure are there, and were written just now.
        problem: why it failed.
    """

    answer: str | None
    is_whole: bool
    problem: str


def draw(
    plan: Plan,
    store: Store,
    uri: str,
    figure: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] = {},
) -> Drawing:
    """Let `analysis` write report and figure; `options` are further ones of `analysis report`."""
    before = _written(figure)
    words = ["report", "--out", str(figure.parent), *options]
    found = analyse(plan, store, uri, words, environment)
    # Not only of the plan: a figure of an earlier launch may lie there.
    is_new = drawn_plan(figure) == plan.key and not before.items() & _written(figure).items()
    failed = found.returncode != 0
    return Drawing(None if failed else found.stdout, is_new and not failed, found.stderr.strip())


def _written(figure: Path) -> dict[str, int]:
    """Map the suffixes of the files that there are to when each was written, in nanoseconds."""
    files = {suffix: figure.with_suffix(suffix) for suffix in SUFFIXES}
    return {suffix: file.stat().st_mtime_ns for suffix, file in files.items() if file.exists()}


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


def keep(plan: Plan, store: Store, uri: str, *, changed: bool = True) -> str | None:
    """Draw a launch for MLflow alone.

    Args:
        plan: a plan that was sent.
        store: the runs directory.
        uri: where MLflow keeps the runs.
        changed: there are new results; without any, a report that was sent stays.

    Returns:
        The reason why the sweep's run lacks report and figure; None: it has them.
    """
    if not changed and has_file(store, uri, plan, "report.html"):
        return None
    with TemporaryDirectory() as folder:
        figure = figure_in(Path(folder), plan)
        drawing = draw(plan, store, uri, figure)
        if not drawing.is_whole:
            return drawing.problem or "there is nothing to draw"
        return send_drawn(plan, store, uri, figure)
