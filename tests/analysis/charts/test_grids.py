"""Rows of pictures fill a page, and break where they would be too low to see."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imsave

from analysis.charts.drawing import draw
from analysis.charts.grammar import FigureData, Grid
from analysis.charts.style import page

pytestmark = pytest.mark.heavy


def pictures(count: int, *, tall: int, wide: int) -> Grid:
    content = io.BytesIO()
    imsave(content, np.zeros((tall, wide, 3), np.uint8), format="png")
    return Grid("pairs", tuple((f"S-{n}", {}, content.getvalue()) for n in range(count)))


@pytest.mark.parametrize(
    ("name", "heads"),
    [("neurips", [["S-0", "S-1", "S-2"]]), ("cvpr", [["S-0", "S-1"], ["S-2"]])],
)
def test_pictures_are_as_wide_as_the_page(name: str, heads: list[list[str]]) -> None:
    data = FigureData("grids", "", "runs", (), (), grids=(pictures(3, tall=10, wide=40),))
    figure = draw(data, page(name, column=True))
    _, *rows = figure.axes
    assert [[tick.get_text() for tick in axes.get_xticklabels()] for axes in rows] == heads
    assert [axes.get_title(loc="left") for axes in rows] == ["pairs", ""][: len(rows)]
    for axes in rows:
        axes.apply_aspect()
        place = axes.get_position()
        assert place.width > 0.9
        # Three of a row, or two, the last one with room for another.
        wide = 40 * len(heads[0]) / 10
        inches = place.width * figure.get_figwidth(), place.height * figure.get_figheight()
        assert inches[0] / inches[1] == pytest.approx(wide, rel=0.1)


def test_long_heads_are_broken_and_leave_the_pictures_their_height() -> None:
    grid = pictures(6, tall=34, wide=132)
    columns = tuple(
        (f"S-{n} " + "codebook_init=uniform " * 3, *rest)
        for n, (_, *rest) in enumerate(grid.columns)
    )
    figure = draw(FigureData("f", "t", "runs", (), grids=(replace(grid, columns=columns),)))
    rows = [axes for axes in figure.axes if axes.images]
    assert len(rows) == 2
    for axes in rows:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        inches = axes.get_window_extent().height / figure.dpi
        assert inches > 0.4


def test_heads_are_broken_between_words_and_within_keys() -> None:
    grid = pictures(6, tall=34, wide=132)
    name = "S-S codebook_init=uniform dead_code_restart_every=0 __a==b"
    columns = tuple((name, *rest) for _, *rest in grid.columns)
    figure = draw(FigureData("f", "t", "runs", (), grids=(replace(grid, columns=columns),)))
    head = figure.axes[1].get_xticklabels()[0].get_text()
    lines = head.split("\n")
    assert len(lines) > 1
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(line[-1] in "_=" or f"{line} " in name for line in lines[:-1])
