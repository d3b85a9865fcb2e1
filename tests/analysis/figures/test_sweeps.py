from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import RequestError, load_runs
from analysis.charts.drawing import draw, draw_chart
from analysis.charts.files import write
from analysis.charts.grammar import Chart, FigureData
from analysis.figures.sweeps import sweep_figure
from analysis.statistics.groups import groups

pytestmark = pytest.mark.heavy

WITHOUT, WITH = "without semantic regularisation", "with semantic regularisation"


@pytest.fixture(scope="session")
def runs(uri: str) -> pl.DataFrame:
    return load_runs("decoder_scaling", uri)


@pytest.fixture(scope="session")
def data(runs: pl.DataFrame) -> FigureData:
    return sweep_figure(runs)


def points(chart: Chart) -> dict[tuple[str, str], tuple[float, float]]:
    return {(s.name, m.label): (m.x, m.y) for s in chart.series for m in s.marks}


def test_the_four_charts_of_a_scaling_sweep(data: FigureData) -> None:
    axes = [(chart.x.key, chart.y.key) for chart in data.charts]
    assert axes == [
        ("params_decoder", "lpips"),
        ("params_decoder", "ar_val_loss"),
        ("ar_bits_per_image", "psnr"),
        ("rkid", "gkid"),
    ]
    assert points(data.charts[1])[WITH, "S-L"] == pytest.approx((1.34, 4.025))
    assert points(data.charts[2])[WITHOUT, "S-S"] == pytest.approx((183.5, 17.905))
    small = data.charts[1].series[0].marks[0]
    assert small.y_bar is not None
    assert (small.y_bar.low, small.y_bar.high) == (pytest.approx(3.93), pytest.approx(4.03))
    assert [(o["seed"], y) for o, (_, y) in zip(small.origins, small.seeds, strict=True)] == [
        (0, 3.93),
        (1, 4.03),
    ]


def test_both_coordinates_have_intervals(data: FigureData) -> None:
    (series,) = (s for s in data.charts[2].series if s.name == WITHOUT)
    small = series.marks[0]
    assert small.x_bar is not None
    assert (small.x_bar.low, small.x_bar.high, small.x_bar.kind) == (181.0, 186.0, "half_range")
    assert small.y_bar is not None


def test_what_is_not_shown_is_said(data: FigureData) -> None:
    assert data.missing == ("Reconstruction and generation: S-B (no rKID, gKID)",)
    assert data.notes[0].startswith(
        "Runs: decoder_scaling at scale micro (S-S, S-B, S-L). Seeds per setting: 1 to 2. Bars: "
        "half the range"
    )
    assert "AR val loss, AR bits/image: 2000 validation images" in " ".join(data.notes)


def test_no_line_through_fewer_than_three_sizes(data: FigureData) -> None:
    joined = {s.name: [m.label for m in s.marks] for s in data.charts[0].series if s.joined}
    assert joined == {WITHOUT: ["S-S", "S-B", "S-L"]}, "two regularised sizes stay unjoined"


def test_a_line_joins_sizes_in_order_even_where_x_turns_back(data: FigureData) -> None:
    (line,) = (s for s in data.charts[2].series if s.joined)
    assert [mark.label for mark in line.marks] == ["S-S", "S-B", "S-L"]
    assert [round(mark.x, 1) for mark in line.marks] == [183.5, 201.0, 199.5], "S-L needs fewer"
    assert line.arrows


def test_a_line_never_joins_two_protocols(runs: pl.DataFrame) -> None:
    other = pl.when(pl.col("tokenizer") == "S-B").then(pl.lit("other")).otherwise(pl.lit("usual"))
    chart = sweep_figure(runs.with_columns(other.alias("protocol.lpips"))).charts[0]
    assert not any(series.joined for series in chart.series)
    assert [s.name for s in chart.series] == [f"{WITHOUT} [a]", f"{WITHOUT} [b]", f"{WITH} [a]"]


def test_one_seed_shows_the_standard_error_of_kid(uri: str) -> None:
    chart = sweep_figure(load_runs("tokenizer_scaling", uri)).charts[3]
    (mark,) = chart.marks
    assert mark.x_bar is not None
    assert mark.y_bar is not None
    assert (mark.x_bar.kind, mark.x_bar.low, mark.y_bar.high) == ("standard_error", 3426.0, 3759.0)


def test_a_sweep_without_its_own_figure_is_drawn_over_its_axis(uri: str) -> None:
    data = sweep_figure(load_runs("entropy_loss", uri, plan="all"))
    assert [(chart.x.key, chart.y.key) for chart in data.charts] == [
        ("tokenizer.entropy_weight", "psnr"),
        ("tokenizer.entropy_weight", "codebook_usage"),
    ]
    (usage,) = data.charts[1].series
    assert usage.name == "S-S"
    assert [(m.x, m.y) for m in usage.marks] == [
        (0.0, pytest.approx(16)),
        (0.01, pytest.approx(58)),
        (0.02, pytest.approx(100)),
    ], "percent, as in every figure"
    assert not usage.joined, "three points of one seed each do not make a curve"
    assert "gKID (gKID not measured)" in data.missing


def test_codes_that_are_all_used_have_no_chart(uri: str) -> None:
    used = load_runs("entropy_loss", uri, plan="all").with_columns(codebook_usage=pl.lit(1.0))
    assert [chart.y.key for chart in sweep_figure(used).charts] == ["psnr"]


def test_an_axis_of_names_becomes_ticks(runs: pl.DataFrame) -> None:
    teacher = pl.when(pl.col("seed") == 0).then(pl.lit("dinov2")).otherwise(pl.lit("resnet50"))
    named = runs.with_columns(
        pl.lit("semantic_teacher").alias("sweep"),
        teacher.alias("tokenizer.teacher"),
        pl.lit(["tokenizer.teacher"]).alias("axes"),
    ).filter(pl.col("tokenizer.semantic_weight") > 0)
    chart = sweep_figure(named).charts[0]
    assert [name for _, name in chart.x.ticks] == ["dinov2", "resnet50"]
    assert not any(series.joined for series in chart.series)
    axes = draw_chart(Figure().subplots(), chart)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["dinov2", "resnet50"]


def test_nothing_to_draw(uri: str) -> None:
    with pytest.raises(RequestError, match=r"LPIPS not measured.*Measured: params.*SSIM"):
        sweep_figure(load_runs("generator_scaling", uri))


def test_every_point_is_named_inside_its_chart_and_no_name_covers_another(
    data: FigureData,
) -> None:
    figure = draw(data)
    renderer = FigureCanvasAgg(figure).get_renderer()
    places = [axes for axes in figure.axes if axes.axison]
    for axes, chart in zip(places, data.charts, strict=True):
        texts = [text for text in axes.texts if text.get_text()]  # an arrow is an empty text
        # Once for all marks of a size, which differ in what colour and shape tell.
        named = {(mark.label, mark.x) for mark in chart.marks}
        assert sorted(t.get_text() for t in texts) == sorted(n for n, _ in named)
        boxes = [text.get_window_extent(renderer) for text in texts]
        frame = axes.get_window_extent(renderer)
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert not any(a.overlaps(b) for a, b in pairs)


def test_files_are_complete_and_the_same_every_time(
    runs: pl.DataFrame, data: FigureData, tmp_path: Path
) -> None:
    first = write(data, tmp_path / "first", ("pdf", "png"))
    second = write(sweep_figure(runs), tmp_path / "second", ("pdf", "png"))
    names = [f"decoder_scaling-micro.{suffix}" for suffix in ("pdf", "png", "csv", "json")]
    assert [path.name for path in first] == names
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True)] == [
        True
    ] * 4


def test_csv_has_each_mean_and_each_seed(data: FigureData, tmp_path: Path) -> None:
    *_, table, _ = write(data, tmp_path, ("png",))
    rows = list(csv.DictReader(table.open()))
    mine = [
        r for r in rows if (r["y_key"], r["label"], r["series"]) == ("ar_val_loss", "S-S", WITHOUT)
    ]
    assert [(r["mark"], r["seed"], float(r["y"])) for r in mine] == [
        ("mean", "", pytest.approx(3.98)),
        ("seed", "0", 3.93),
        ("seed", "1", 4.03),
    ]
    assert (mine[0]["y_interval"], mine[0]["n"], mine[0]["x_unit"]) == ("half_range", "2", "M")
    assert mine[0]["y_protocol"] == "2000 validation images, 32 tokens, vocabulary 512"
    assert mine[0]["sources"].split() == [mine[1]["sources"], mine[2]["sources"]]


def test_every_point_leads_to_its_runs(
    runs: pl.DataFrame, data: FigureData, tmp_path: Path
) -> None:
    *_, path = write(data, tmp_path, ("png",))
    record = json.loads(path.read_text())
    large = next(n for n in record["numbers"] if (n["label"], n["series"]) == ("S-L", WITH))
    run_id = large["sources"][1]
    run = record["sources"][run_id]
    row = runs.filter(pl.col("run_id") == run_id).row(0, named=True)
    assert (row["tokenizer"], row["seed"], row["tokenizer.semantic_weight"]) == ("S-L", 1, 0.5)
    assert run["stage_runs"] == {"train_tokenizer": row["stage_run.train_tokenizer"]}
    assert run["stage_keys"] == {"train_tokenizer": row["stage_key.train_tokenizer"]}
    assert (run["git_sha"], run["git_dirty"]) == ("c0ffee", False)
    assert run["config"]["tokenizer.semantic_weight"] == 0.5
    assert run["config"]["generator.dropout"] == 0.1
    assert run["sweep_run_id"] == row["sweep_run_id"]


def test_groups_know_size_and_regularisation(runs: pl.DataFrame) -> None:
    found = {group.label: group for group in groups(runs)}
    assert found["S-B"].size == 0.95e6
    assert (found["S-L"].regularised, found["S-L +reg"].regularised) == (False, True)
    assert found["S-L +reg"].values("psnr") == {0: 18.26, 1: 17.84}


def test_losses_that_do_not_compare_give_way_to_bits(runs: pl.DataFrame) -> None:
    mine = runs.with_columns(pl.lit("mine").alias("sweep"))
    drawn = {chart.y.key for chart in sweep_figure(mine).charts}
    assert "ar_val_loss" in drawn
    several = [f"{number % 2} codes" for number in range(len(mine))]
    mixed = mine.with_columns(pl.Series("protocol.ar_val_loss", several))
    drawn = {chart.y.key for chart in sweep_figure(mixed).charts}
    assert "ar_bits_per_image" in drawn
    assert "ar_val_loss" not in drawn
