"""Every figure by name: of the published numbers, of runs, or both on the same axes."""

from __future__ import annotations

from dataclasses import replace

from analysis.charts.grammar import FigureData, Source, together

# Importing these modules fills the registry with the figures of this package.
from analysis.figures import declared, search_history  # noqa: F401
from analysis.figures.parts.registry import FIGURES, NamedFigure, RunsRequest, StoreTrials
from analysis.figures.published import paper, peers  # noqa: F401
from analysis.store.requests import RequestError
from analysis.store.runs import load_runs
from gigatok.names import FigureChoice
from gigatok.plugins import FIGURES as FIGURE_POINTS
from gigatok.plugins import load_installed

# Behind the figures of this package, whose names they may not take.
load_installed(FIGURE_POINTS)


def open_trials(uri: str, scale: str | None, sweep: str = "") -> StoreTrials:
    """Read all sweeps of a store: at one scale, that of the newest launch by default.

    Args:
        uri: the store.
        scale: of the launches.
        sweep: the only one to read; "": all.

    Raises:
        RequestError: no store, nothing in it, or nothing at this scale.
    """
    # Scales are never mixed in a figure: numbers of two scales differ by their size alone.
    only = sweep or None
    newest = scale or load_runs(only, uri).sort("launched")["scale"][-1]
    return StoreTrials(load_runs(only, uri, scale=newest), uri, sweep)


def known(name: str) -> str | None:
    """Find the name of a figure, from that or from its number in the paper; None for others."""
    if name in FIGURES:
        return name
    # "Figure 7", "figure-7" and "figure7" are one.
    plain = name.lower().replace(" ", "").replace("-", "").replace("_", "")
    return next((figure.name for figure in FIGURES.values() if figure.paper == plain), None)


def offers(name: str, source: Source) -> bool:
    """Tell whether a figure exists in a source at all; a store may still lack its runs."""
    found = FIGURES[name]
    return (found.published if source == "published" else found.runs) is not None


def named_figure(
    name: str,
    source: Source,
    trials: StoreTrials | None = None,
    choice: FigureChoice | None = None,
) -> FigureData:
    """Make a figure from a source.

    Args:
        name: a key of the registry.
        source: published numbers, runs, or both on the same axes.
        trials: of a store, where runs are asked for.
        choice: axes to show instead of the figure's own.

    Raises:
        RequestError: the source has nothing for it; the message says what would.
    """
    found = FIGURES[name]
    wanted = choice or FigureChoice()
    if source == "published":
        return _chosen(_published(found), wanted)
    if found.runs is None:
        raise RequestError(f"{name}: drawn from published numbers only")
    if trials is None:
        raise RequestError(f"{name}: there is no tracking store; launch a sweep first")
    # A figure without published numbers is drawn from runs alone, without complaint.
    both = source == "both" and found.published is not None
    made = found.runs(RunsRequest(trials, wanted, beside_paper=both))
    if both:
        axes = FigureChoice(wanted.x, wanted.y)  # the rest is about runs
        made = together(_chosen(_published(found), axes), made)
    # The bare name is that of the published numbers: figures of several sources share a folder.
    return replace(made, name=f"{name}-{source}")


def _published(figure: NamedFigure) -> FigureData:
    if figure.published is None:
        raise RequestError(f"{figure.name}: no numbers are published; see --source runs")
    return figure.published()


def _chosen(data: FigureData, choice: FigureChoice) -> FigureData:
    """Keep the charts of published numbers that show the chosen axes.

    Raises:
        RequestError: there is none, or series or panels are chosen: what was published decides.
    """
    if choice.by or choice.panel or choice.where:
        raise RequestError(
            f"{data.name}: series and panels of published numbers are those of the paper; "
            "--by, --panel and --where are for runs (--source runs)"
        )
    x, ys = choice.x, choice.y
    kept = [c for c in data.charts if x in ("", c.x.key) and (not ys or c.y.key in ys)]
    if not kept:
        there = ", ".join(dict.fromkeys(f"{c.y.key} over {c.x.key}" for c in data.charts))
        raise RequestError(f"{data.name}: no published chart of these axes; there are {there}")
    return replace(data, charts=tuple(kept))
