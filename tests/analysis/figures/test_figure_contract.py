"""The built-in figures keep the contract, and it tells what a broken one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from analysis.charts.grammar import FigureData
from analysis.figures.contract import broken_by_drawing, broken_promises
from analysis.figures.gallery import FIGURES
from analysis.figures.parts.registry import NamedFigure, RunsRequest, of_runs
from analysis.figures.runs import Panel, RunFigure, declare

pytestmark = pytest.mark.heavy
EMPTY = FigureData("mine", "", "published", (), ())


@pytest.mark.parametrize("name", FIGURES)
def test_the_built_in_figures_keep_it(name: str) -> None:
    assert broken_promises(FIGURES[name]) == []


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (NamedFigure("My figure", FIGURES["cure"].published, FIGURES["cure"].runs), "its name is"),
        (NamedFigure("mine"), "nothing makes it"),
        (NamedFigure("mine", lambda: FigureData("mine", "", "published", (), ())), "no chart"),
        (
            NamedFigure("mine", lambda: FigureData("mine", "", "published", (), ())),
            "title is empt",
        ),
    ],
)
def test_what_is_wrong_is_said(figure: NamedFigure, text: str) -> None:
    assert any(text in line for line in broken_promises(figure))


@pytest.fixture
def registry() -> Iterator[None]:
    """Undo what a test registers."""
    before = dict(FIGURES)
    yield
    FIGURES.clear()
    FIGURES.update(before)


@pytest.mark.usefixtures("registry")
def test_a_figure_is_drawn_from_runs(uri: str) -> None:
    panels = (Panel("params_total", "psnr"),)
    declare(RunFigure("mine", "How sharp?", ("decoder_scaling",), panels))
    declare(RunFigure("other", "How sharp?", ("never_launched",), panels))
    assert broken_by_drawing("mine", uri) == []
    (line,) = broken_by_drawing("other", uri)
    assert "shows nothing of a sweep that it names" in line
    assert "never_launched" in line


def numbered() -> Callable[[RunsRequest], FigureData]:
    count = 0

    def make(request: RunsRequest) -> FigureData:
        nonlocal count
        count += 1
        return FigureData("mine", f"Number {count}", "runs", (), ())

    return make


def failing(request: RunsRequest) -> FigureData:
    raise KeyError("psnr")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("make", "text"),
    [(numbered(), "made twice from the same runs, it is another"), (failing, "KeyError: 'psnr'")],
)
def test_what_a_broken_maker_does_is_said(
    uri: str, make: Callable[[RunsRequest], FigureData], text: str
) -> None:
    of_runs("mine", sweeps=("decoder_scaling",))(make)
    found = broken_by_drawing("mine", uri)
    assert any(text in line for line in found), found
