"""Contract of a figure: what gallery, report and page rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from analysis.charts.drawing import draw
from analysis.charts.grammar import FigureData
from analysis.figures import gallery
from analysis.figures.parts.registry import NamedFigure
from analysis.store.requests import RequestError
from gigatok.contracts.base import Check, broken

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def broken_promises(figure: NamedFigure) -> list[str]:
    """List what a figure does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, figure, f"figure {figure.name}")


def name(figure: NamedFigure) -> Iterator[str]:
    """Check that the name can be that of a file."""
    if not _NAME.fullmatch(figure.name):
        yield f"its name is {figure.name!r}; use small letters, digits, - and _"


def makers(figure: NamedFigure) -> Iterator[str]:
    """Check that something makes it."""
    if figure.published is None and figure.runs is None:
        yield "nothing makes it; see analysis.figures.runs.declare"


def published(figure: NamedFigure) -> Iterator[str]:
    """Check that a figure of published numbers can be drawn."""
    if figure.published is not None:
        yield from _drawn(figure.published())


def broken_by_drawing(name: str, uri: str) -> list[str]:
    """Draw a figure from the runs of a store, and list what is wrong with it."""
    try:
        trials = gallery.open_trials(uri, None)
        made, again = (gallery.named_figure(name, "runs", trials) for _ in range(2))
        found = list(_drawn(made))
    except RequestError as error:
        return [f"it shows nothing of a sweep that it names: {error}"]
    except Exception as error:
        return [f"drawing it: {type(error).__name__}: {error}"]
    return found if made == again else [*found, "made twice from the same runs, it is another"]


def _drawn(data: FigureData) -> Iterator[str]:
    if not (data.charts or data.grids):
        yield "it has no chart"
    if not data.title:
        yield "its title is empty"
    draw(data)


CHECKS: tuple[Check, ...] = (name, makers, published)
