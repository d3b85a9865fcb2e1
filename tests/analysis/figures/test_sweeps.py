from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib as mpl
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import RequestError, draw_figure, export_figure, figure_info, load_runs
from analysis.charts import style
from analysis.charts.labels import Box, place_labels
from analysis.figures.plots import FigureInfo, draw_panel
from analysis.figures.points import Panel
from analysis.statistics.groups import groups


@pytest.fixture(scope="session")
def runs(uri: str) -> pl.DataFrame:
    return load_runs("decoder_scaling", uri)


@pytest.fixture(scope="session")
def info(runs: pl.DataFrame) -> FigureInfo:
    return figure_info(runs)


def points(panel: Panel) -> dict[str, tuple[float, float]]:
    return {point.label: (point.x.mean, point.y.mean) for point in panel.points}


def test_the_four_panels_of_a_scaling_sweep(info: FigureInfo) -> None:
    axes = [(panel.x.key, panel.y.key) for panel in info.panels]
    assert axes == [
        ("params_decoder", "lpips"),
        ("params_decoder", "ar_val_loss"),
        ("ar_bits_per_image", "psnr"),
        ("rkid", "gkid"),
    ]
    assert points(info.panels[1])["S-L +reg"] == pytest.approx((1.34e6, 4.025))
    assert points(info.panels[2])["S-S"] == pytest.approx((183.5, 17.905))
    small = info.panels[1].points[0]
    assert (small.y.low, small.y.high, small.y.n) == (pytest.approx(3.93), pytest.approx(4.03), 2)
    assert [(seed.seed, seed.y) for seed in small.seeds] == [(0, 3.93), (1, 4.03)]


def test_what_is_not_shown_is_said(info: FigureInfo) -> None:
    assert info.panels[3].omitted == ("S-B (no rKID, gKID)",)
    assert info.caption[-1] == "Not shown: (d) S-B (no rKID, gKID)."
    assert info.caption[0].startswith(
        "decoder_scaling at scale micro. Seeds per setting: 1 to 2. Bars: half the range"
    )
    assert "AR val loss, AR bits/image: 2000 validation images" in info.caption[1]


def test_no_line_through_fewer_than_three_sizes(info: FigureInfo) -> None:
    lines = [[point.label for point in line] for line in info.panels[0].lines]
    assert lines == [["S-S", "S-B", "S-L"]], "the two regularised sizes stay unjoined"
    assert info.panels[2].lines == []


def test_a_line_never_joins_two_protocols(runs: pl.DataFrame) -> None:
    other = pl.when(pl.col("tokenizer") == "S-B").then(pl.lit("other")).otherwise(pl.lit("usual"))
    panel = figure_info(runs.with_columns(other.alias("protocol.lpips"))).panels[0]
    assert panel.lines == []
    assert {"S-S [a]", "S-B [b]", "S-L [a]"} <= set(points(panel))


def test_one_seed_shows_the_standard_error_of_kid(uri: str) -> None:
    panel = figure_info(load_runs("tokenizer_scaling", uri)).panels[3]
    (point,) = panel.points
    assert (point.x.interval, point.x.low, point.y.high) == ("standard_error", 3426.0, 3759.0)


def test_a_sweep_without_its_own_figure_is_drawn_over_its_axis(uri: str) -> None:
    info = figure_info(load_runs("entropy_loss", uri, plan="all"))
    assert [(panel.x.key, panel.y.key) for panel in info.panels] == [
        ("tokenizer.entropy_weight", "psnr"),
        ("tokenizer.entropy_weight", "codebook_usage"),
    ]
    usage = info.panels[1]
    assert [(p.label, p.x.mean, p.y.mean) for p in usage.points] == [
        ("S-S", 0.0, pytest.approx(0.16)),
        ("S-S", 0.01, pytest.approx(0.58)),
        ("S-S", 0.02, pytest.approx(1.0)),
    ]
    assert usage.lines == [], "three points of one seed each do not make a curve"
    assert "gKID (gKID not measured)" in info.caption[-1]


def test_an_axis_of_names_becomes_ticks(runs: pl.DataFrame) -> None:
    teacher = pl.when(pl.col("seed") == 0).then(pl.lit("dinov2")).otherwise(pl.lit("resnet50"))
    named = runs.with_columns(
        pl.lit("semantic_teacher").alias("sweep"),
        teacher.alias("tokenizer.teacher"),
        pl.lit(["tokenizer.teacher"]).alias("axes"),
    ).filter(pl.col("tokenizer.semantic_weight") > 0)
    panel = figure_info(named).panels[0]
    assert panel.x.categories == ("dinov2", "resnet50")
    assert panel.lines == []
    axes = draw_panel(Figure().subplots(), panel)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["dinov2", "resnet50"]


def test_nothing_to_draw(uri: str) -> None:
    with pytest.raises(RequestError, match=r"LPIPS not measured.*Measured: params, SSIM"):
        figure_info(load_runs("generator_scaling", uri))


def test_every_point_is_named_inside_its_panel_and_no_name_covers_another(
    info: FigureInfo,
) -> None:
    figure = draw_figure(info)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes, panel in zip(figure.axes, info.panels, strict=True):
        assert sorted(t.get_text() for t in axes.texts) == sorted(points(panel))
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        frame = axes.get_window_extent(renderer)
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert not any(a.overlaps(b) for a, b in pairs)


def test_crowded_labels_are_spread_out() -> None:
    figure = Figure(figsize=(3, 3))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots()
    at = axes.transData.transform((0.5, 0.5))
    mark = Box(at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5)
    texts = place_labels(axes, renderer, [(f"S-{i}", tuple(at)) for i in range(6)], [mark])
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_files_are_complete_and_the_same_every_time(
    runs: pl.DataFrame, info: FigureInfo, tmp_path: Path
) -> None:
    first = export_figure(info, runs, tmp_path / "first")
    second = export_figure(figure_info(runs), runs, tmp_path / "second")
    names = [f"decoder_scaling-micro.{suffix}" for suffix in ("pdf", "png", "csv", "json")]
    assert [path.name for path in first] == names
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True)] == [
        True
    ] * 4


def test_csv_has_each_mean_and_each_seed(
    runs: pl.DataFrame, info: FigureInfo, tmp_path: Path
) -> None:
    *_, table, _ = export_figure(info, runs, tmp_path, ["png"])
    rows = list(csv.DictReader(table.open()))
    mine = [r for r in rows if r["y_metric"] == "ar_val_loss" and r["label"] == "S-S"]
    assert [(r["mark"], r["seed"], float(r["y"])) for r in mine] == [
        ("mean", "", pytest.approx(3.98)),
        ("seed", "0", 3.93),
        ("seed", "1", 4.03),
    ]
    assert mine[0]["y_interval"] == "half_range"
    assert mine[0]["run_ids"].split() == [mine[1]["run_ids"], mine[2]["run_ids"]]


def test_every_point_leads_to_its_runs(
    runs: pl.DataFrame, info: FigureInfo, tmp_path: Path
) -> None:
    *_, path = export_figure(info, runs, tmp_path, ["png"])
    record = json.loads(path.read_text())
    (large,) = [p for p in record["panels"][0]["points"] if p["label"] == "S-L +reg"]
    run = record["runs"][large["runs"][1]["run_id"]]
    row = runs.filter(pl.col("run_id") == large["runs"][1]["run_id"]).row(0, named=True)
    assert (row["tokenizer"], row["seed"], row["tokenizer.semantic_weight"]) == ("S-L", 1, 0.5)
    assert run["stage_runs"] == {"train_tokenizer": row["stage_run.train_tokenizer"]}
    assert run["stage_keys"] == {"train_tokenizer": row["stage_key.train_tokenizer"]}
    assert (run["git_sha"], run["git_dirty"]) == ("c0ffee", False)
    assert run["config"]["tokenizer.semantic_weight"] == 0.5
    assert run["config"]["generator.dropout"] == 0.1
    assert record["sweep_runs"] == [row["sweep_run_id"]]


def test_style_is_decided_once() -> None:
    with style.applied():
        assert mpl.rcParams["pdf.fonttype"] == 42
    colours = [style.colour(name) for name in ("S-S", "S-B", "S-L", "B-L", "XL-XXL")]
    assert len(set(colours)) == 5
    assert style.colour("T-L") == style.colour("S-L"), "an unlisted pair takes its decoder's"
    assert style.colour("64x1-96x2") not in colours
    assert style.marker(True) != style.marker(False)


def test_the_users_matplotlib_settings_stay_out_of_figures_and_come_back() -> None:
    with mpl.rc_context({"text.usetex": True, "figure.dpi": 10, "savefig.format": "svg"}):
        with style.applied(style.PLAIN):
            for name in ("text.usetex", "figure.dpi", "savefig.format"):
                assert mpl.rcParams[name] == mpl.rcParamsDefault[name]
        assert mpl.rcParams["text.usetex"] is True


def test_groups_know_size_and_regularisation(runs: pl.DataFrame) -> None:
    found = {group.label: group for group in groups(runs)}
    assert found["S-B"].size == 0.95e6
    assert (found["S-L"].regularised, found["S-L +reg"].regularised) == (False, True)
    assert found["S-L +reg"].values("psnr") == {0: 18.26, 1: 17.84}
