"""Places of files that commands write, and how messages name them."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_RUNS = Path("runs")
"""Runs directory of whoever names none, as seen from the working folder."""


def beside(runs: Path, folder: str) -> Path:
    """Place a folder of results next to a runs directory, so that both move together."""
    return runs.parent / folder


def as_seen(path: Path) -> str:
    """Write a path as seen from the working folder, or whole where that leads far away."""
    relative = os.path.relpath(path)
    far = os.path.join(os.pardir, os.pardir)
    return str(path.absolute()) if relative.startswith(far) else relative
