"""Command of `analysis` whose words come on its input: `python -m analysis.waiting`.

A launch starts it while it sends the last results, so that half of the time of a report, which is
imports, has passed when there is something to draw.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from select import select

from analysis.__main__ import app

DRAWING = (
    *("analysis.report.report", "analysis.studies.summary", "analysis.store.databases"),
    "matplotlib.backends.backend_pdf",
)
"""Modules that a report of a sqlite store takes, and that commands import when they need them."""


def main() -> None:
    """Import until a line of JSON comes, with `words`, `folder` and `variables`; then obey."""
    # Who has spoken already may want less than a figure.
    if not select([sys.stdin], [], [], 0)[0]:
        for module in DRAWING:
            import_module(module)
    line = sys.stdin.readline()
    # No line: the launcher ended without a word.
    if line:
        told = json.loads(line)
        os.chdir(told["folder"])
        os.environ.update(told["variables"])
        app(told["words"], prog_name="python -m analysis")


if __name__ == "__main__":
    main()
