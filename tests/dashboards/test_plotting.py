"""Charts of `analysis` as Vega-Lite, compiled and drawn by Vega itself."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import altair
import pytest
import vl_convert

from analysis.charts.grammar import Bar, Chart, Mark, Series, axis
from analysis.charts.style import WITH, WITHOUT, Look
from dashboards.plotting.bars import uses_figure
from dashboards.plotting.base import Spec
from dashboards.plotting.charts import chart_figure
from dashboards.plotting.crowd import CROWD
from dashboards.plotting.curves import curve_figure, overlay_figure
from dashboards.plotting.search import search_figure

pytestmark = pytest.mark.heavy


def drawn(figure: Spec) -> str:
    """Let Vega draw a figure, and check it against the schema of Vega-Lite."""
    altair.Chart.from_dict({"$schema": altair.SCHEMA_URL, **figure})
    return vl_convert.vegalite_to_svg({**figure, "width": 800})


def texts(svg: str, part: str) -> list[str]:
    """List the texts of a part of a drawing, such as `role-axis-label`, from left to right."""
    groups = re.findall(rf'<g class="mark-text {part}.*?</g>', svg)
    found = [re.findall(r">([^<]*)</text>", group) for group in groups]
    return [text for group in found for text in group]


def across(figure: Spec) -> list[str]:
    """The texts of the ticks of x, as they are drawn."""
    svg = drawn(figure)
    title = figure["encoding"]["x"]["title"]
    # Axes come one after the other, each with its title.
    of_x = svg[: svg.index(f">{title}</text>")].rpartition("role-axis-label")[2]
    return re.findall(r">([^<]+)</text>", of_x)


def layer(figure: Spec, kind: str) -> Spec:
    """The layer of one kind of mark."""
    (found,) = (one for one in figure["layer"] if one["mark"]["type"] == kind)
    return found


def marks_of(figure: Spec) -> list[dict[str, Any]]:
    """The rows of marks, those that the legend and the intervals have left out."""
    points = [one for one in figure["layer"] if one["mark"]["type"] == "point"]
    return [row for row in points[-1]["data"]["values"] if "run" in row]


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ((68.0, 62200.0), ["100", "1000", "10000"]),
        ((120.0, 11000.0), ["200", "500", "1000", "2000", "5000", "10000"]),
    ],
)
def test_a_logarithmic_axis_has_whole_numbers(sizes: tuple[float, float], shown: list[str]):
    marks = tuple(Mark(size, 1.0, (), "run") for size in sizes)
    chart = Chart("", axis("ar_bits_per_image"), axis("psnr"), (Series("s", marks, WITH),))
    figure = chart_figure(chart)
    assert figure["encoding"]["x"]["scale"]["type"] == "log"
    assert across(figure) == shown


def test_few_model_sizes_are_marked_themselves():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (0.63, 0.97, 1.6))
    chart = Chart("", axis("params_total"), axis("psnr"), (Series("s", marks, WITH),))
    assert across(chart_figure(chart)) == ["0.63", "0.97", "1.60"]


def test_texts_of_sizes_that_would_touch_are_left_out():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (0.18, 0.185, 0.25, 0.64))
    chart = Chart("", axis("params_total"), axis("psnr"), (Series("s", marks, WITH),))
    figure = chart_figure(chart)
    assert len(figure["encoding"]["x"]["axis"]["values"]) == 3  # two of nearly one size share
    svg = vl_convert.vegalite_to_svg({**figure, "width": 150})
    assert ">0.18<" in svg
    assert ">0.64<" in svg


def test_few_values_of_a_setting_are_its_ticks():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (64.0, 16.0, 16.0))
    key = "tokenizer.codebook_size"
    chart = Chart("", axis(key), axis("psnr"), (Series("s", marks, WITH),))
    figure = chart_figure(chart)
    assert figure["encoding"]["x"]["title"] == key
    assert across(figure) == ["16", "64"]


def test_powers_of_two_are_their_own_ticks():
    marks = tuple(Mark(size, 1.0, (), "run") for size in (512.0, 8.0, 64.0))
    chart = Chart("", axis("tokenizer.codebook_size"), axis("psnr"), (Series("s", marks, WITH),))
    figure = chart_figure(chart)
    assert figure["encoding"]["x"]["scale"]["type"] == "log"
    assert across(figure) == ["8", "64", "512"]


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
    figure = chart_figure(Chart("", axis("params_total"), axis("psnr"), series))
    found = layer(figure, "text")["data"]["values"]
    assert [(row["series"], row["text"]) for row in found] == [("high", name) for name in names]
    # The line falls from the first and rises from the second; the last has it at its lower left.
    assert [(row["baseline"], row["align"]) for row in found] == [
        ("bottom", "left"),
        ("top", "left"),
        ("bottom", "right"),
    ]
    assert texts(drawn(figure), "role-mark") == list(names)


def test_each_seed_is_a_small_mark_that_leads_to_its_run():
    origins = tuple({"run_id": f"run {seed}", "trial": f"seed={seed}"} for seed in range(2))
    mean = Mark(1.0, 2.0, origins, "run", seeds=((1.0, 1.5), (1.0, 2.5)))
    single = Mark(3.0, 4.0, ({"run_id": "alone"},), "run", seeds=((3.0, 4.0),))
    paper = Mark(2.0, 2.0, ({"citation": "A", "place": "Table 1"},), "digitised")
    published = Series("paper", (paper,), WITHOUT, joined=False)
    series = (Series("empty", (), WITH), Series("runs", (mean, single), WITH), published)
    chart = Chart("", axis("params_total"), axis("psnr"), series)
    figure = chart_figure(chart, picks=True, zooms=True)
    seeds, means = marks_of(figure)[:2], marks_of(figure)[2:]
    assert [row["y"] for row in seeds] == [1.5, 2.5]
    assert [row["run"] for row in seeds] == ["run 0", "run 1"]
    assert [row["run"] for row in means] == ["run 0", "alone", None]
    assert seeds[0]["z"] < means[0]["z"]
    # What was digitised is hollow, and says where it is from.
    assert [row["f"] for row in means] == [WITH.colour, WITH.colour, "transparent"]
    assert means[2]["said"]["digitised"] == "A, Table 1"
    drawn(figure)


def test_the_band_of_a_curve_is_its_interval():
    marks = tuple(
        Mark(step, 2.0, (), "run", y_bar=Bar(1.0, 4.0, "half_range")) for step in (1.0, 2.0)
    )
    chart = Chart("", axis("step"), axis("psnr"), (Series("s", marks, WITH, banded=True),))
    for figure in (overlay_figure(chart, log_x=True, log_y=False), chart_figure(chart)):
        band = layer(figure, "area")["data"]["values"]
        assert [(row["x"], row["y"], row["y2"]) for row in band] == [
            (1.0, 1.0, 4.0),
            (2.0, 1.0, 4.0),
        ]
        assert [row["y"] for row in layer(figure, "line")["data"]["values"]] == [2.0, 2.0]
        assert all(one["mark"]["type"] != "rule" for one in figure["layer"])
        drawn(figure)


def test_hovering_over_a_step_tells_all_curves():
    series = tuple(
        Series(name, tuple(Mark(x, y, (), "run") for x in (0.0, 10.0, 30.0)), Look("#000000", ""))
        for name, y in (("one", 1.0), ("other", 2.0))
    )
    chart = Chart("", axis("step"), axis("psnr"), series)
    figure = overlay_figure(chart, log_x=False, log_y=False)
    places = layer(figure, "rect")["data"]["values"]
    assert [(row["x"], row["x2"]) for row in places] == [(0.0, 5.0), (5.0, 20.0), (20.0, 30.0)]
    assert places[1]["said"] == {"title": "training step 10", "one": "1", "other": "2"}
    # Step 0 has no place on a logarithmic axis.
    logarithmic = overlay_figure(chart, log_x=True, log_y=False)
    assert {row["x"] for row in layer(logarithmic, "line")["data"]["values"]} == {10.0, 30.0}
    drawn(figure)
    drawn(logarithmic)
    drawn(curve_figure(Chart("", axis("step"), axis("psnr"), series[:1]), "a_loss"))


def test_a_loss_that_diverged_is_a_gap_and_a_score_that_did_is_no_mark():
    marks = tuple(
        Mark(float(x), y, (), "run") for x, y in enumerate((1.0, math.nan, math.inf, 2.0))
    )
    chart = Chart("", axis("step"), axis("train/loss"), (Series("s", marks, WITH),))
    for figure in (overlay_figure(chart, log_x=False, log_y=False), curve_figure(chart, "s")):
        found = layer(figure, "line")["data"]["values"]
        assert [row["y"] for row in found] == [1.0, None, None, 2.0]
        assert "NaN" not in drawn(figure)
    assert [row["y"] for row in marks_of(chart_figure(chart))] == [1.0, 2.0]
    # Nothing of it is left on a logarithmic axis.
    below = tuple(Mark(float(x), -1.0, (), "run") for x in range(3))
    drawn(
        overlay_figure(replace(chart, series=(Series("s", below, WITH),)), log_x=False, log_y=True)
    )


def test_lines_follow_the_order_of_settings_and_fits_are_dashed():
    marks = tuple(Mark(x, y, (), "run") for x, y in ((3.0, 1.0), (1.0, 2.0), (2.0, 3.0)))
    fit = tuple(Mark(x, 1.0, (), "fit") for x in (1.0, 3.0))
    series = (Series("s", marks, WITH), Series("fit", fit, Look("#666666", ""), dashed=True))
    figure = chart_figure(Chart("", axis("rkid"), axis("psnr"), series, better_up=True))
    lines = re.findall(r'class="mark-line.*?d="M([^"]*)"', drawn(figure))
    runs = [[float(at) for at in point.split(",")] for point in lines[0].split("L")]
    # Less rKID is better, so that x runs backwards: 3 is left of 1, and 2 between them.
    assert runs[0][0] < runs[2][0] < runs[1][0]
    dashes = {row["series"]: row["d"] for row in layer(figure, "line")["data"]["values"]}
    assert dashes["fit"] != dashes["s"] == [1, 0]


def test_series_of_one_name_are_not_joined():
    """Two launches of one sweep that are compared have the same settings."""
    twice = [tuple(Mark(x, y, (), "run") for x in (1.0, 2.0)) for y in (1.0, 2.0)]
    series = tuple(Series("same", marks, WITH) for marks in twice)
    svg = drawn(chart_figure(Chart("", axis("params_total"), axis("psnr"), series)))
    assert len(re.findall(r'class="mark-line', svg)) == 2
    assert texts(svg, "role-legend-label") == ["same"]


def test_a_crowd_is_drawn_once_where_it_covers_itself():
    count = CROWD + 500
    marks = tuple(
        Mark(1.0 + i % 2, 0.5, ({"run_id": f"r{i}", "trial": f"trial {i}"},), "run")
        for i in range(count)
    )
    far = Mark(9.0, 0.6, ({"run_id": "far", "trial": "far"},), "run")
    paper = Series("paper", (Mark(3.0, 0.5, (), "digitised", "S-S"),), WITHOUT, joined=False)
    runs = Series("s", (*marks, far), WITH, joined=False)
    chart = Chart("", axis("psnr"), axis("ssim"), (paper, runs))
    figure = chart_figure(chart, picks=True, zooms=True)
    found = sorted(marks_of(figure), key=lambda row: row["PSNR (dB)"])
    places = [(row["PSNR (dB)"], row["run"]) for row in found]
    assert places == [(1.0, "r0"), (2.0, "r1"), (9.0, "far")]
    under = f"{count // 2 - 1:,} under it"
    assert [row["trial"] for row in found] == [
        f"trial 0 and {under}",
        f"trial 1 and {under}",
        "far",
    ]
    assert figure["usermeta"]["embedOptions"]["renderer"] == "canvas"
    published = figure["layer"][1]
    assert published["mark"]["fill"] == "transparent"
    assert [row["trial"] for row in published["data"]["values"]] == ["S-S"]
    drawn(figure)


def test_a_search_has_an_axis_for_each_key_and_wide_ones_are_logarithmic():
    trials = [
        {"number": i, "params": {"lr": lr, "size": size}, "values": {"psnr": value}}
        for i, (lr, size, value) in enumerate(
            ((1e-4, "B", 10.0), (1e-2, "S", 12.0), (1e-3, "B", 11.0))
        )
    ]
    pruned = {"number": 3, "params": {"lr": 1.0, "size": "L"}, "values": None}
    study = {"trials": [*trials, pruned], "objectives": {"psnr": "maximize"}}
    figure = search_figure(study, "psnr")
    assert figure is not None
    places: dict[str, list[float]] = {}
    for row in layer(figure, "line")["data"]["values"]:
        places.setdefault(row["k"], []).append(row["v"])
    assert list(places) == ["lr", "size", "PSNR (dB) ↑"]
    assert places["lr"] == pytest.approx([0.0, 1.0, 0.5])
    assert places["size"] == [0.0, 1.0, 0.0]
    assert places["PSNR (dB) ↑"] == pytest.approx([0.0, 1.0, 0.5])
    svg = drawn(figure)
    assert {"0.0001", "0.01", "B", "S"} <= set(texts(svg, "role-mark"))
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
    figure = chart_figure(Chart("", axis(key), axis("psnr"), series))
    of = {name: [r for r in marks_of(figure) if r["series"] == name] for name in ("one", "other")}
    left, right = ([row["x"] for row in rows if row["z"] == 100] for rows in of.values())
    assert all(a < x < b for a, x, b in zip(left, ends, right, strict=True))
    seeds = [row for row in of["one"] if row["z"] < 100]
    assert [row["x"] for row in seeds] == pytest.approx([left[0]] * 2 + [left[1]] * 2)
    # What is said is what was measured.
    said = seeds[2]["said"]
    assert said[axis(key).label.strip(" ↓↑")] == f"{ends[1]:g}"
    drawn(figure)


def test_names_of_others_stay_text():
    """A trial may be called like a field, an expression or a tag."""
    evil = "'+alert(1)+'</script><b>"
    marks = (Mark(1.0, 2.0, ({"run_id": "a", "trial": evil},), "run", evil),)
    series = (Series(evil, marks, WITH), Series("b", marks, WITHOUT))
    svg = drawn(chart_figure(Chart("", axis("params_total"), axis("psnr"), series)))
    assert "<b>" not in svg
    assert "alert(1)" in svg  # as the name beside the mark


def test_uses_are_in_their_order():
    figure = uses_figure(["0", "1-9", "10-99"], [3, 4, 5])
    assert texts(drawn(figure), "role-axis-label")[:3] == ["0", "1-9", "10-99"]
    assert json.dumps(figure)
