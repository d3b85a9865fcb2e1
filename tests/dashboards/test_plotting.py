"""Charts of `analysis` as Plotly figures."""

from __future__ import annotations

import pytest

from analysis.charts.grammar import Chart, Mark, Series, axis
from analysis.charts.style import WITH
from dashboards.plotting import chart_figure


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ((0.68, 622.0), [1, 10, 100]),
        ((120.0, 1100.0), [200, 500, 1000]),
        ((0.68, 1.74), [0.7, 0.8, 0.9, 1]),
        ((2.0, 2.0), [2]),
    ],
)
def test_a_logarithmic_axis_has_whole_numbers(sizes: tuple[float, float], shown: list[float]):
    marks = tuple(Mark(size, 1.0, (), "run") for size in sizes)
    chart = Chart("", axis("params_total"), axis("psnr"), (Series("s", marks, WITH),))
    found = chart_figure(chart).layout.xaxis
    assert found.type == "log"
    inside = [tick for tick in found.tickvals if sizes[0] <= tick <= sizes[1]]
    assert inside == pytest.approx(shown)
    assert len(found.ticktext) == len(found.tickvals)


def test_between_two_whole_numbers_plotly_chooses():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (0.21, 0.29))
    chart = Chart("", axis("params_total"), axis("psnr"), (Series("s", marks, WITH),))
    assert chart_figure(chart).layout.xaxis.tickvals is None
