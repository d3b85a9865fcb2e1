"""Own figures as drawn: order, ticks, legend and room for every word, measured on the canvas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.charts import style
from analysis.charts.drawing import draw
from analysis.charts.grammar import FigureData
from analysis.charts.ticks import texts
from analysis.figures.sweeps import sweep_figure
from gigatok.names import FigureChoice
from tests.analysis.figures.test_any_study import (
    DECODER,
    ENCODER,
    MIXED,
    PLANE,
    SIZES,
    WEIGHT,
    Setting,
    sized,
    study,
)

pytestmark = pytest.mark.heavy
COLUMN = style.page("cvpr", column=True)
THREE_INCHES = replace(style.PLAIN, width=3.0)
LONG = [f"a-teacher-with-a-name-of-some-fifty-letters-at-size-{size}" for size in "SBL"]
SCORES = FigureChoice(y=("psnr", "codebook_usage"))
QUANTIZERS = ["vq", "bsq-9", "fsq-8x8x8", "lfq-9", "rvq-3"]
QUANTIZER, CODES = "tokenizer.quantizer", "tokenizer.codebook_size"


def some(setting: Setting) -> dict[str, float]:
    """Scores of a study that varies no size."""
    return {"rfid": 3.0, "psnr": 20.0, "codebook_usage": 0.5}


def constant(setting: Setting) -> dict[str, float]:
    """Scores that differ in the last digits only."""
    return {"psnr": 20.0 + setting["tokenizer.lr"], "codebook_usage": 0.5}


def weighted(setting: Setting) -> dict[str, float]:
    """A score as large as the weight, which may be negative."""
    return {"psnr": setting["tokenizer.entropy_weight"], "codebook_usage": 0.5}


def named(setting: Setting) -> dict[str, float]:
    """A score for each of forty teachers."""
    return some(setting) | {"psnr": float(setting["tokenizer.teacher"].partition("-")[2])}


def coded(setting: Setting) -> dict[str, float]:
    """Scores of quantizers, of which one has codes of its own size."""
    return some(setting) | {"psnr": 15.0 + QUANTIZERS.index(setting[QUANTIZER])}


def quantized() -> FigureData:
    """Figure of quantizers whose codebook size follows from them, as in a `zip`."""
    grid = study({QUANTIZER: QUANTIZERS, CODES: [8, 512]}, coded)
    return sweep_figure(grid.filter((grid[QUANTIZER] == "rvq-3") == (grid[CODES] == 8)), SCORES)


STUDIES: Mapping[str, Callable[[], FigureData]] = {
    "five sizes, mixed": lambda: sweep_figure(
        study({DECODER: MIXED, WEIGHT: [0.5, 0.0]}, sized), PLANE
    ),
    "two axes": lambda: sweep_figure(study({DECODER: MIXED, ENCODER: ["B", "S"]}, sized)),
    "three axes": lambda: sweep_figure(
        study({DECODER: MIXED, ENCODER: ["B", "S"], WEIGHT: [0.0, 0.5]}, sized), PLANE
    ),
    "one point": lambda: sweep_figure(study({DECODER: ["S"]}, sized)),
    "no interval": lambda: sweep_figure(study({DECODER: MIXED}, sized, seeds=(0,))),
    "negative and zero": lambda: sweep_figure(
        study({"tokenizer.entropy_weight": [0.5, -1.0, 0.0]}, weighted), SCORES
    ),
    "forty": lambda: sweep_figure(
        study({"tokenizer.teacher": [f"teacher-{i}" for i in range(40)]}, named), SCORES
    ),
    "eighteen series": lambda: sweep_figure(
        study({"tokenizer.lr": [1e-4, 2e-4, 4e-4], "generator.layers": list(range(18))}, some),
        SCORES,
    ),
    "quantizers": quantized,
    "long names": lambda: sweep_figure(
        study({"tokenizer.lr": [1e-4, 2e-4], "tokenizer.teacher": LONG}, some), SCORES
    ),
    "constant": lambda: sweep_figure(
        study({"tokenizer.lr": [1e-4, 2e-4, 4e-4]}, constant, seeds=(0,)), SCORES
    ),
}


@cache
def made(name: str) -> FigureData:
    return STUDIES[name]()


@cache
def drawn(name: str, page: style.Venue = COLUMN) -> Figure:
    return draw(made(name), page)


def shown(words: Sequence[Text], figure: Figure) -> list[tuple[str, Bbox]]:
    """Texts that are drawn, with the pixels that they cover."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    seen = (text for text in words if text.get_visible() and text.get_text())
    return [(text.get_text(), text.get_window_extent(renderer)) for text in seen]


def words_of(axes: Any) -> list[Text]:
    """All texts of one chart but the ticks of slanted names, whose boxes cross on purpose."""
    ticks = [text for text in texts(axes.xaxis) if not text.get_rotation()] + texts(axes.yaxis)
    return [*ticks, axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("page", [COLUMN, style.PLAIN], ids=["column", "page"])
def test_no_word_covers_another_and_none_leaves_the_page(name: str, page: style.Venue) -> None:
    figure = drawn(name, page)
    if page.height is not None:
        assert figure.get_figheight() <= page.height * style.MOST_OF_PAGE + 1e-6
    charts = [axes for axes in figure.axes if axes.axison]
    found = shown([text for axes in charts for text in words_of(axes)], figure)
    whole = figure.bbox.padded(2)
    assert [words for words, box in found if not whole.containsx(box.x1)] == []
    touching = [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(found, 2)
        if a.padded(-1).overlaps(b.padded(-1))
    ]
    assert touching == []
    assert min(text.get_fontsize() for axes in charts for text in words_of(axes)) >= 5


def legend_of(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


def ticks_of(figure: Figure) -> list[str]:
    """Texts of x of the lowest chart; above it there are none."""
    *above, lowest = [axes for axes in figure.axes if axes.axison]
    assert not any(texts(axes.xaxis) for axes in above)
    return [text.get_text() for text in texts(lowest.xaxis)]


@pytest.mark.parametrize("page", [style.page("aaai", column=True), COLUMN, THREE_INCHES])
def test_long_names_are_broken_so_that_the_legend_stays_on_the_page(page: style.Venue) -> None:
    figure = drawn("long names", page)
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    boxes = [text.get_window_extent() for text in legend.get_texts()]
    names = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    assert {name.rpartition("=")[2] for name in names} == set(LONG), "whole, nothing added"
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_ticks_say_their_values_themselves() -> None:
    for axes in (one for one in drawn("constant").axes if one.axison):
        assert axes.yaxis.get_major_formatter().get_offset() == ""


def test_a_study_of_sizes_follows_them_and_shows_every_seed() -> None:
    (chart,) = made("five sizes, mixed").charts
    for series in chart.series:
        assert [mark.label for mark in series.marks] == [f"S-{size}" for size in SIZES]
        assert all(len(mark.seeds) == 2 for mark in series.marks)
    assert legend_of(drawn("five sizes, mixed")) == [
        "without semantic regularisation",
        "with semantic regularisation",
    ]


def test_charts_below_each_other_have_the_words_of_x_once() -> None:
    figure = drawn("two axes")
    charts = [axes for axes in figure.axes if axes.axison]
    places = [(round(a.get_position().x0, 3), -a.get_position().y0) for a in charts]
    columns = itertools.groupby(
        sorted(zip(places, charts, strict=True), key=lambda p: p[0]), lambda p: p[0][0]
    )
    for _, members in columns:
        *above, lowest = [axes for _, axes in members]
        assert [axes.get_xlabel() for axes in above] == [""] * len(above)
        assert lowest.get_xlabel() == "decoder params (M)"
        assert {axes.get_xlim() for axes in above} <= {lowest.get_xlim()}
    assert legend_of(figure) == ["encoder=S", "encoder=B"]


def test_a_third_axis_has_a_panel_for_each_value() -> None:
    figure = drawn("three axes")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert titles == ["(a) gFID, encoder=S", "(b) gFID, encoder=B"]
    assert len(legend_of(figure)) == 2


def test_one_point_has_one_tick_and_no_legend() -> None:
    figure = drawn("one point")
    assert legend_of(figure) == []
    assert ticks_of(figure) == ["52.0"]


def test_no_interval_no_line_and_no_small_marks() -> None:
    for chart in made("no interval").charts:
        assert not any(series.joined for series in chart.series)
        assert all(mark.y_bar is None and len(mark.seeds) == 1 for mark in chart.marks)


def test_negative_and_zero_values_are_in_order_on_linear_axes() -> None:
    assert [mark.x for mark in made("negative and zero").charts[0].marks] == [-1.0, 0.0, 0.5]
    for axes in (one for one in drawn("negative and zero").axes if one.axison):
        assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
        assert axes.get_xlim()[0] < -1.0


def test_of_forty_names_those_are_written_that_have_room() -> None:
    data = made("forty")
    assert [len(chart.marks) for chart in data.charts] == [40, 40]
    names = ticks_of(drawn("forty"))
    assert 2 <= len(names) < 40
    assert set(names) <= {f"teacher-{i}" for i in range(40)}


def test_eighteen_series_have_a_look_and_a_handle_each() -> None:
    data = made("eighteen series")
    looks = {series.name: series.look for chart in data.charts for series in chart.series}
    assert len(looks) == len(set(looks.values())) == 18
    assert len(legend_of(drawn("eighteen series"))) == 18


def test_a_quantizer_is_on_x_by_name_and_its_codebook_size_no_second_axis() -> None:
    data = made("quantizers")
    for chart in data.charts:
        assert chart.x.key == QUANTIZER
        assert [text for _, text in chart.x.ticks] == QUANTIZERS
        (series,) = chart.series
        assert series.name == "S-S", "what each quantizer decides is not said again"
    assert ticks_of(drawn("quantizers")) == QUANTIZERS


def test_a_plane_of_quantizers_names_its_marks() -> None:
    bits = {"bsq-6": 64, "bsq-9": 512, "lfq-6": 64, "lfq-9": 512, "vq": 64}
    table = study({QUANTIZER: list(bits), CODES: [64, 512]}, lambda s: some(s) | {"gfid": 4.0})
    sizes = table[QUANTIZER].replace_strict(bits, default=64)
    kept = table.filter((table[CODES] == sizes) | (table[QUANTIZER] == "vq"))
    (chart,) = sweep_figure(kept, PLANE).charts
    assert {mark.label for mark in chart.marks} == set(bits)
    assert [series.name for series in chart.series] == ["codebook_size=64", "codebook_size=512"]
