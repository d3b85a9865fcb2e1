"""Charts of `analysis` as Plotly figures."""

from __future__ import annotations

import pytest

from analysis.charts.grammar import Bar, Chart, Mark, Series, axis
from analysis.charts.style import WITH, WITHOUT
from dashboards.plotting import chart_figure, overlay_figure, run_at, search_figure


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ((68.0, 62200.0), [100, 1000, 10000]),
        ((120.0, 11000.0), [200, 500, 1000, 2000, 5000, 10000]),
    ],
)
def test_a_logarithmic_axis_has_whole_numbers(sizes: tuple[float, float], shown: list[float]):
    marks = tuple(Mark(size, 1.0, (), "run") for size in sizes)
    chart = Chart("", axis("ar_bits_per_image"), axis("psnr"), (Series("s", marks, WITH),))
    found = chart_figure(chart).layout.xaxis
    assert found.type == "log"
    inside = [tick for tick in found.tickvals if sizes[0] <= tick <= sizes[1]]
    assert inside == pytest.approx(shown)
    assert len(found.ticktext) == len(found.tickvals)


def test_few_model_sizes_are_marked_themselves():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (0.63, 0.97, 1.6))
    chart = Chart("", axis("params_total"), axis("psnr"), (Series("s", marks, WITH),))
    found = chart_figure(chart).layout.xaxis
    assert (list(found.tickvals), list(found.ticktext)) == (
        [0.63, 0.97, 1.6],
        ["0.63", "0.97", "1.60"],
    )


def test_texts_of_sizes_that_would_touch_on_a_phone_are_left_out():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (0.18, 0.2, 0.25, 0.64))
    chart = Chart("", axis("params_total"), axis("psnr"), (Series("s", marks, WITH),))
    found = chart_figure(chart).layout.xaxis
    assert list(found.tickvals) == [0.18, 0.2, 0.25, 0.64]
    assert list(found.ticktext) == ["0.18", "", "0.25", "0.64"]


def test_few_values_of_a_setting_are_its_ticks():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (64.0, 16.0, 16.0))
    key = "tokenizer.codebook_size"
    chart = Chart("", axis(key), axis("psnr"), (Series("s", marks, WITH),))
    found = chart_figure(chart).layout.xaxis
    assert (found.title.text, list(found.tickvals)) == (key, [16, 64])


def test_a_name_stands_once_at_the_highest_of_its_marks_off_their_lines():
    names = ("S-S", "S-B", "S-L")
    low, high = (
        tuple(
            Mark(x, y, (), "run", name)
            for x, y, name in zip((1.0, 2.0, 3.0), ys, names, strict=True)
        )
        for ys in ((1.0, 2.0, 1.5), (3.0, 2.5, 4.0))
    )
    series = (Series("low", low, WITH), Series("high", high, WITHOUT))
    first, second = chart_figure(Chart("", axis("params_total"), axis("psnr"), series)).data
    assert first.text is None
    assert list(second.text) == list(names)
    # The line falls from the first and rises from the second; the last has it at its lower left.
    assert list(second.textposition) == ["top right", "bottom right", "top left"]


def test_each_seed_is_a_small_mark_that_leads_to_its_run():
    origins = tuple({"run_id": f"run {seed}", "trial": f"seed={seed}"} for seed in range(2))
    mean = Mark(1.0, 2.0, origins, "run", seeds=((1.0, 1.5), (1.0, 2.5)))
    single = Mark(3.0, 4.0, ({"run_id": "alone"},), "run", seeds=((3.0, 4.0),))
    series = (Series("empty", (), WITH), Series("runs", (mean, single), WITH))
    chart = Chart("", axis("params_total"), axis("psnr"), series)
    means, seeds = chart_figure(chart).data
    assert list(seeds.y) == [1.5, 2.5]
    assert [run_at(chart, 0, point) for point in range(len(means.x))] == ["run 0", "alone"]
    assert [run_at(chart, 1, point) for point in range(len(seeds.x))] == ["run 0", "run 1"]


def test_the_band_of_a_curve_is_its_interval():
    marks = tuple(
        Mark(step, 2.0, (), "run", y_bar=Bar(1.0, 4.0, "half_range")) for step in (1.0, 2.0)
    )
    chart = Chart("", axis("step"), axis("psnr"), (Series("s", marks, WITH, banded=True),))
    in_curves = overlay_figure(chart, log_x=True, log_y=False).data
    in_scaling = chart_figure(chart).data[::-1]
    for band, line in (in_curves, in_scaling):
        assert (list(band.x), list(band.y)) == ([1.0, 2.0, 2.0, 1.0], [4.0, 4.0, 1.0, 1.0])
        assert list(line.y) == [2.0, 2.0]
        assert line.error_y.array is None


def test_powers_of_two_are_their_own_ticks():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (512.0, 8.0, 64.0))
    chart = Chart("", axis("tokenizer.codebook_size"), axis("psnr"), (Series("s", marks, WITH),))
    found = chart_figure(chart).layout.xaxis
    assert (found.type, list(found.tickvals)) == ("log", [8.0, 64.0, 512.0])
    assert list(found.ticktext) == ["8", "64", "512"]


def test_a_search_has_an_axis_for_each_key_and_wide_ones_are_logarithmic():
    trials = [
        {"params": {"lr": lr, "size": size}, "values": {"psnr": value}}
        for lr, size, value in ((1e-4, "B", 10.0), (1e-2, "S", 12.0), (1e-3, "B", 11.0))
    ]
    pruned = {"params": {"lr": 1.0, "size": "L"}, "values": None}
    study = {"trials": [*trials, pruned], "objectives": {"psnr": "maximize"}}
    found = search_figure(study, "psnr")
    assert found is not None
    rate, size, reached = found.data[0].dimensions
    assert list(rate.values) == pytest.approx([-4.0, -2.0, -3.0])
    assert (list(size.values), list(size.ticktext)) == ([0, 1, 0], ["B", "S"])
    assert list(reached.values) == [10.0, 12.0, 11.0]
    assert search_figure({**study, "trials": trials[:1]}, "psnr") is None


@pytest.mark.parametrize(("key", "ends"), [("params_total", (1.0, 4.0)), ("step", (0.0, 3.0))])
def test_intervals_that_would_cover_each_other_stand_apart(key: str, ends: tuple[float, float]):
    bar = Bar(1.0, 3.0, "half_range")
    origins = ({"run_id": "a", "trial": "seed=0"}, {"run_id": "b", "trial": "seed=1"})
    first, second = (
        tuple(Mark(x, 2.0, origins, "run", y_bar=bar, seeds=((x, 1.0), (x, 3.0))) for x in ends)
        for _ in range(2)
    )
    series = (Series("one", first, WITH), Series("other", second, WITHOUT))
    left, right, seeds, _ = chart_figure(Chart("", axis(key), axis("psnr"), series)).data
    assert all(a < x < b for a, x, b in zip(left.x, ends, right.x, strict=True))
    assert list(seeds.x) == pytest.approx([left.x[0]] * 2 + [left.x[1]] * 2)
    # What is said is what was measured.
    assert f": {ends[1]:g}<br>" in seeds.hovertext[2]
