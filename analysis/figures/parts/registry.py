"""The registry of figures: a dict that modules fill when they are imported.

A figure is a function, of published numbers (`@published`) or of runs (`@of_runs`); most figures
of runs are declarations (`analysis.figures.runs.declare`). A module outside the package that is
imported before a figure is asked for adds its own in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import polars as pl

from analysis.charts.grammar import FigureData
from gigatok.names import FigureChoice
from gigatok.plugins import Registry, registry


@dataclass(frozen=True)
class StoreTrials:
    """The trials of a store at one scale, and where they are.

    Attributes:
        sweep: the one whose trials a figure shows, whatever sweeps it names; "": its own.
    """

    table: pl.DataFrame
    uri: str
    sweep: str = ""


@dataclass(frozen=True)
class RunsRequest:
    """Trials and wishes that a figure of runs is made from.

    Attributes:
        choice: axes that the user wants instead of the figure's own.
        beside_paper: whether it joins published numbers, which are FID: KID must not replace it.
    """

    trials: StoreTrials
    choice: FigureChoice = field(default_factory=FigureChoice)
    beside_paper: bool = False


PublishedMaker = Callable[[], FigureData]
RunsMaker = Callable[[RunsRequest], FigureData]


@dataclass(frozen=True)
class NamedFigure:
    """A figure and who makes it; None: that source has nothing for it.

    Attributes:
        paper: its number in the paper, such as `figure7`.
        sweeps: sweeps whose runs it shows, best first.
    """

    name: str
    published: PublishedMaker | None = None
    runs: RunsMaker | None = None
    paper: str = ""
    sweeps: tuple[str, ...] = ()


FIGURES: Registry[NamedFigure] = registry("figure", contract="analysis.figures.contract")
"""Every figure by name."""


def published(name: str, paper: str = "") -> Callable[[PublishedMaker], PublishedMaker]:
    """Register the function below as the maker of a figure of published numbers.

    Args:
        name: of the figure.
        paper: its number in the paper, such as `figure7`, which finds it as well.
    """

    def register(make: PublishedMaker) -> PublishedMaker:
        # Published numbers and runs of one figure are registered by different modules.
        known = _entry(name)
        if known.published is not None:
            raise ValueError(f"two figures {name!r} of published numbers: choose another name")
        # Either module may be imported first: what the other one said is kept.
        FIGURES[name] = replace(known, published=make, paper=paper or known.paper)
        # The function itself is returned, so that it can be called and tested under its own name.
        return make

    return register


def of_runs(
    name: str, paper: str = "", sweeps: tuple[str, ...] = ()
) -> Callable[[RunsMaker], RunsMaker]:
    """Register the function below as the maker of a figure of runs.

    Args:
        name: of the figure; one that has published numbers too can show both together.
        paper: its number in the paper.
        sweeps: whose runs it shows, for the list of figures.
    """

    def register(make: RunsMaker) -> RunsMaker:
        known = _entry(name)
        if known.runs is not None:
            raise ValueError(f"two figures {name!r} of runs: choose another name")
        FIGURES[name] = replace(known, runs=make, paper=paper or known.paper, sweeps=sweeps)
        return make

    return register


def _entry(name: str) -> NamedFigure:
    return FIGURES.get(name, NamedFigure(name))
