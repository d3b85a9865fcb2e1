"""Places of charts on a page."""

from __future__ import annotations

import pytest

from analysis.charts import layout, style
from analysis.charts.drawing import draw
from analysis.charts.grammar import Chart, FigureData, Mark, Series, axis
from analysis.store.requests import RequestError


def figure_of(*results: str) -> FigureData:
    """A figure of a chart for each result, over the codebook's size."""
    marks = tuple(Mark(x, 1.0, (), "run") for x in (16.0, 64.0))
    series = (Series("runs", marks, style.WITH, joined=False),)
    x = axis("tokenizer.codebook_size")
    charts = tuple(Chart(name, x, axis(name), series) for name in results)
    return FigureData("figure", "title", "runs", charts, ())


@pytest.mark.parametrize(
    ("results", "rows"),
    [
        (["psnr", "psnr", "gfid", "gfid", "rfid", "rfid"], [1, 1, 2, 2, 3, 3]),
        (["psnr"] * 3 + ["gfid"] * 3, [1, 1, 1, 2, 2, 2]),
        (["psnr", "gfid", "rfid", "lpips", "ssim"], [1, 1, 1, 2, 2]),
        (["psnr"] * 4 + ["gfid"] * 4, [1, 1, 1, 2, 2, 2, 3, 3]),  # no row has room for four
    ],
)
def test_panels_of_one_result_share_a_row(results: list[str], rows: list[int]) -> None:
    plan = layout.plan(figure_of(*results), style.VENUES["neurips"].width, ())
    assert [cell[0].start for cell in plan.cells] == rows


@pytest.mark.heavy
@pytest.mark.parametrize(("venue", "is_narrowed"), [("cvpr", True), ("neurips", False)])
def test_a_figure_that_is_too_tall_is_told_what_would_help(venue: str, is_narrowed: bool) -> None:
    data = figure_of(*["psnr", "gfid"] * 12)
    with pytest.raises(RequestError, match="24 charts do not fit") as refused:
        draw(data, style.page(venue, column=True))
    assert ("--width text" in str(refused.value)) is is_narrowed
