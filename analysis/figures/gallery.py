"""Every figure by name: of the published numbers, of runs, or both on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from analysis.charts.grammar import Plate, together
from analysis.figures import paper as paper_figures
from analysis.figures import peers as peer_figures
from analysis.figures import runs as run_figures
from analysis.figures import search_history
from analysis.store.runs import load_runs
from analysis.store.stores import RequestError

Source = Literal["published", "runs", "both"]

PUBLISHED = paper_figures.FIGURES | peer_figures.FIGURES
OF_RUNS = (*run_figures.FIGURES, search_history.NAME)
NAMES = tuple(dict.fromkeys([*PUBLISHED, *OF_RUNS]))
PAPER_NAMES = {
    "figure3": "dilemma",
    "figure5": "entropy",
    "figure6": "probe-agreement",
    "figure7": "cure",
    "figure9": "1d-2d",
    "figure12": "training-duration",
}
"""Other names of figures: their numbers in the paper."""


@dataclass(frozen=True)
class Runs:
    """The trials of a store at one scale, and where they are."""

    table: pl.DataFrame
    uri: str


def open_runs(uri: str, scale: str | None) -> Runs:
    """Read all sweeps of a store: at one scale, that of the newest launch by default.

    Raises:
        RequestError: no store, nothing in it, or nothing at this scale.
    """
    newest = scale or load_runs(None, uri).sort("launched")["scale"][-1]
    return Runs(load_runs(None, uri, scale=newest), uri)


def known(name: str) -> str | None:
    """The name of a figure, from that or from its number in the paper; None for others."""
    plain = name.lower().replace(" ", "").replace("-", "").replace("_", "")
    found = PAPER_NAMES.get(plain, name)
    return found if found in NAMES else None


def offers(name: str, source: Source) -> bool:
    """Whether a figure exists in a source at all; a store may still lack its runs."""
    return name in (PUBLISHED if source == "published" else OF_RUNS)


def plate(name: str, source: Source, runs: Runs | None, *, curves: Sequence[str] = ()) -> Plate:
    """Make a figure from a source.

    Raises:
        RequestError: the source has nothing for it; the message says what would.
    """
    if source == "published":
        if name not in PUBLISHED:
            raise RequestError(f"{name}: no numbers are published; see --source runs")
        return PUBLISHED[name]()
    if name not in OF_RUNS:
        raise RequestError(f"{name}: drawn from published numbers only")
    if runs is None:
        raise RequestError(f"{name}: there is no tracking store; launch a sweep first")
    if name == search_history.NAME:
        return search_history.search_plate(runs.table, runs.uri)
    both = source == "both" and name in PUBLISHED
    made = run_figures.run_plate(name, runs.table, runs.uri, curves=curves, beside_paper=both)
    return together(PUBLISHED[name](), made) if both else made
