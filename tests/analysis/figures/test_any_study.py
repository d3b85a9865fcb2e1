"""Figures of studies that nobody has seen before: marks, order, ticks and series of charts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis import RequestError
from analysis.charts import style
from analysis.charts.drawing import draw
from analysis.charts.files import write
from analysis.charts.grammar import Chart, FigureData
from analysis.charts.style import WITH, WITHOUT
from analysis.figures.gallery import named_figure
from analysis.figures.parts.registry import StoreTrials
from analysis.figures.scaling import first_chart
from analysis.figures.sweeps import from_worst_to_best, sweep_figure
from analysis.statistics.groups import groups
from analysis.store.runs import PROTOCOL
from gigatok.names import METRICS, FigureChoice
from gigatok.names import SIZES as SIZES_OF_TRIALS

pytestmark = pytest.mark.heavy
Setting = Mapping[str, Any]
SIZES = {"S": 26e6, "B": 86e6, "L": 300e6, "XL": 630e6, "XXL": 2300e6}
MIXED = ["L", "S", "XXL", "B", "XL"]
"""Five sizes, not in their order."""
WEIGHT, DECODER, ENCODER = "tokenizer.semantic_weight", "tokenizer.decoder", "tokenizer.encoder"
PLANE = FigureChoice("rfid", ("gfid",))
NUMBERS = tuple(dict.fromkeys((*METRICS, *SIZES_OF_TRIALS)))


def study(
    axes: Mapping[str, Sequence[Any]],
    scores: Callable[[Setting], dict[str, float]],
    seeds: Sequence[int] = (0, 1),
    figure: str | None = None,
) -> pl.DataFrame:
    """Make the table of a study, as the store would give it; seeds differ by a thousandth."""
    same = {"state": "COMPLETE", "sweep": "mine", "plan": "p", "scale": "micro", "question": "q"}
    same |= {"git_sha": "c0ffee", "sweep_run_id": "s", "figure": figure, "launched": 1.0}
    rows = []
    for number, (cell, seed) in enumerate(
        itertools.product(itertools.product(*axes.values()), seeds)
    ):
        setting = {ENCODER: "S", DECODER: "S", WEIGHT: 0.0, **dict(zip(axes, cell, strict=True))}
        found = {k: v * (1 + _spread(k) * seed) for k, v in scores(setting).items()}
        ids = {"run_id": f"r{number}", "trial": f"t{number}", "trial_key": f"k{number}"}
        nothing = {"git_dirty": False, "error": None, "axes": list(axes)}
        tokenizer = {"tokenizer": f"{setting[ENCODER]}-{setting[DECODER]}", "seed": seed}
        ways = {PROTOCOL + name: "one way" if name in found else None for name in METRICS}
        values = {name: found.get(name) for name in NUMBERS}
        rows.append({**same, **ids, **nothing, **tokenizer, **setting, **values, **ways})
    table = pl.DataFrame(rows, infer_schema_length=None)
    return table.with_columns(pl.col(name).cast(pl.Float64) for name in NUMBERS)


def sized(setting: Setting) -> dict[str, float]:
    """rFID turns back with size, so that the order of x is not that of the sizes."""
    rank = list(SIZES).index(setting[DECODER])
    return {
        "params_tokenizer": SIZES[setting[DECODER]] + SIZES[setting[ENCODER]],
        "params_total": SIZES[setting[DECODER]] + SIZES[setting[ENCODER]],
        "params_decoder": SIZES[setting[DECODER]],
        "params_encoder": SIZES[setting[ENCODER]],
        "rfid": (3.0, 2.0, 2.5, 1.0, 1.5)[rank],
        "gfid": 4.0 - 0.2 * rank if setting[WEIGHT] else 5.0 + rank,
        "psnr": 18.0 + rank,
        "codebook_usage": 1 / 1.001,
    }


def lines(chart: Chart) -> dict[str, list[str]]:
    return {series.name: [mark.label for mark in series.marks] for series in chart.series}


def test_own_figure_7_follows_sizes_with_arrows_and_the_papers_colours() -> None:
    (chart,) = sweep_figure(study({DECODER: MIXED, WEIGHT: [0.5, 0.0]}, sized), PLANE).charts
    sizes = [f"S-{size}" for size in SIZES]
    assert lines(chart) == {
        "without semantic regularisation": sizes,
        "with semantic regularisation": sizes,
    }
    assert [series.look for series in chart.series] == [WITHOUT, WITH]
    assert all(series.joined and series.arrows for series in chart.series)
    xs = [mark.x for mark in chart.series[0].marks]
    assert xs != sorted(xs), "the line turns back on x"
    assert all(len(m.seeds) == 2 and m.x_bar and m.y_bar for m in chart.marks)


def test_conditions_choose_the_trials_and_the_caption_says_them() -> None:
    table = study({DECODER: MIXED, ENCODER: ["B", "S"], WEIGHT: [0.0, 0.5]}, sized)
    kept = FigureChoice("rfid", ("gfid",), where=(f"{ENCODER}=S", f"{DECODER}=S,L"))
    data = sweep_figure(table, kept)
    # One chart: the encoder is one size now, and no panels are left.
    assert lines(data.charts[0]) == {
        "without semantic regularisation": ["S-S", "S-L"],
        "with semantic regularisation": ["S-S", "S-L"],
    }
    assert data.notes[0] == f"Only trials with {ENCODER}=S and {DECODER}=S,L."
    # As the tag of a sweep keeps it.
    figure = '{"x": "rfid", "y": ["gfid"], "where": ["decoder=S"]}'
    (told,) = sweep_figure(study({DECODER: MIXED}, sized, figure=figure)).charts
    assert [mark.label for mark in told.marks] == ["S-S"]


def test_a_named_figure_shows_the_sweep_that_is_asked_for() -> None:
    table = study({DECODER: MIXED, WEIGHT: [0.0, 0.5]}, sized)
    trials = StoreTrials(table, "sqlite:///none", "mine")
    # Beside the paper's three sizes are the five of the study.
    planes = [
        chart for chart in named_figure("cure", "both", trials).charts if chart.y.key == "gfid"
    ]
    assert {len(series.marks) for chart in planes for series in chart.series} >= {3, 5}
    with pytest.raises(RequestError, match="no runs for it"):
        named_figure("cure", "runs", replace(trials, sweep=""))


def test_two_axes_are_x_and_series_that_differ_in_colour_and_shape() -> None:
    data = sweep_figure(study({DECODER: MIXED, ENCODER: ["B", "S"]}, sized))
    chart = data.charts[0]
    assert chart.x.key == "params_decoder"
    assert [series.name for series in chart.series] == ["encoder=S", "encoder=B"]
    assert (
        len({s.look.colour for s in chart.series})
        == len({s.look.marker for s in chart.series})
        == 2
    )
    assert [mark.x for mark in chart.series[0].marks] == [size / 1e6 for size in SIZES.values()]


def test_a_third_axis_has_panels_that_reach_the_same_places() -> None:
    axes = {DECODER: MIXED, ENCODER: ["B", "S"], WEIGHT: [0.0, 0.5]}
    first, second = sweep_figure(study(axes, sized), PLANE).charts
    assert [first.title, second.title] == ["gFID, encoder=S", "gFID, encoder=B"]
    assert first.reach == second.reach
    assert [s.look for s in first.series] == [WITHOUT, WITH]


def test_by_and_panel_can_be_chosen_and_wrong_names_are_said() -> None:
    table = study({DECODER: MIXED, ENCODER: ["B", "S"], WEIGHT: [0.0, 0.5]}, sized)
    choice = FigureChoice("rfid", ("gfid",), by="encoder", panel="semantic_weight")
    first, _ = sweep_figure(table, choice).charts
    assert [series.name for series in first.series] == ["encoder=S", "encoder=B"]
    with pytest.raises(RequestError, match=r"--x rfdi: .*did you mean 'rfid'"):
        sweep_figure(table, FigureChoice("rfdi"))


def test_a_sweep_keeps_its_choice() -> None:
    said = json.dumps({"x": "rfid", "y": ["gfid"], "by": "", "panel": ""})
    (chart,) = sweep_figure(study({DECODER: MIXED}, sized, figure=said)).charts
    assert (chart.x.key, chart.y.key) == ("rfid", "gfid")


def test_names_stand_on_the_axis_below_the_answer() -> None:
    quantizer = "tokenizer.quantizer"
    found = first_chart(study({quantizer: ["vq", "fsq"]}, lambda _: {"psnr": 20.0}), "psnr")
    assert found.chart.x.key == quantizer
    assert found.chart.x.ticks == ((0.0, "vq"), (1.0, "fsq"))


def test_below_its_answer_a_study_shows_what_its_figure_names() -> None:
    said = {"x": "rfid", "y": ["gkid", "gfid"], "where": [f"{WEIGHT}=0"]}
    table = study({DECODER: MIXED, WEIGHT: [0.0, 0.5]}, sized, figure=json.dumps(said))
    # KID was not measured, and PSNR is no part of the figure.
    found = first_chart(table, "psnr")
    assert (found.chart.x.key, found.chart.y.key) == ("rfid", "gfid")
    assert [series.name for series in found.chart.series] == ["without semantic regularisation"]
    assert found.notes[0] == f"Only trials with {WEIGHT}=0."
    plain = first_chart(study({DECODER: MIXED}, sized), "psnr")
    assert (plain.chart.x.key, plain.chart.y.key) == ("params_tokenizer", "psnr")


def test_of_many_settings_some_from_the_worst_to_the_best_are_pictured() -> None:
    rates = [4, 0, 9, 2, 7, 5, 1, 8, 3, 6]
    found = groups(study({"tokenizer.lr": rates}, lambda s: {"psnr": 20.0 + s["tokenizer.lr"]}))
    shown = [group.rows[0]["tokenizer.lr"] for group in from_worst_to_best(found, "psnr")]
    assert shown == [4, 0, 9, 2, 7, 5]
    assert from_worst_to_best(found[:6], "psnr") == found[:6]


def test_powers_of_two_are_their_own_ticks() -> None:
    tokens = study({"tokenizer.num_latent_tokens": [256, 32, 128, 64]}, _flat)
    chart = sweep_figure(tokens).charts[0]
    assert chart.log_x
    assert chart.x.powers(chart.xs) == [32, 64, 128, 256]
    axes = draw(FigureData("n", "", "runs", (chart,))).axes[1]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["32", "64", "128", "256"]


def test_one_point_without_an_interval() -> None:
    (chart,) = sweep_figure(study({"tokenizer.lr": [1e-4]}, _flat, seeds=(0,)), PLANE).charts
    (mark,) = chart.marks
    assert (mark.x_bar, mark.y_bar) == (None, None)
    assert not chart.series[0].joined


def test_negative_values_and_zero_are_linear_and_in_order() -> None:
    weights = [0.5, -1.0, 0.0]
    table = study(
        {"tokenizer.entropy_weight": weights}, lambda s: {"psnr": s["tokenizer.entropy_weight"]}
    )
    (chart,) = sweep_figure(table, FigureChoice(y=("psnr",))).charts
    assert not chart.log_x
    assert not chart.log_y
    assert [mark.x for mark in chart.marks] == sorted(weights)
    draw(FigureData("n", "", "runs", (chart,)))


def test_shares_end_at_all_and_marks_stay_inside() -> None:
    (chart,) = sweep_figure(
        study({"tokenizer.lr": [1e-4, 1e-3]}, _flat), FigureChoice(y=("codebook_usage",))
    ).charts
    axes = draw(FigureData("n", "", "runs", (chart,))).axes[1]
    assert axes.get_ylim()[1] == 100


@pytest.mark.parametrize("venue", ["cvpr", "neurips"])
def test_forty_settings_fit_a_column_and_no_label_covers_another(venue: str) -> None:
    axes = {"tokenizer.teacher": [f"teacher-{i}" for i in range(40)]}
    data = sweep_figure(
        study(axes, lambda s: _flat(s) | {"psnr": float(s["tokenizer.teacher"][8:])})
    )
    assert len(data.charts[0].marks) == 40
    page = style.page(venue, column=True)
    figure = draw(data, page)
    assert page.height is not None
    assert figure.get_figheight() <= page.height * style.MOST_OF_PAGE + 1e-6
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    for place in (one for one in figure.axes if one.axison):
        ticks = [t for t in place.get_xticklabels() if t.get_visible() and t.get_text()]
        rights = [t.get_window_extent(renderer).x1 for t in ticks]
        # Charts below each other have the words of x once.
        assert not ticks or 2 <= len(ticks) < 40
        assert all(b - a > 5 for a, b in itertools.pairwise(rights))


def test_a_page_has_no_title_but_a_caption_beside_it(tmp_path: Path) -> None:
    data = sweep_figure(study({DECODER: MIXED}, sized), PLANE)
    paths = write(data, tmp_path, ("png",), style.page("cvpr", column=True))
    caption = next(path for path in paths if path.suffix == ".tex").read_text(encoding="utf-8")
    assert caption.startswith("\\caption{\\textbf{q} Runs: mine at scale micro")
    assert "\\label{fig:mine-micro}" in caption
    figure = draw(data, style.page("cvpr", column=True))
    assert not figure.get_suptitle()


def _spread(metric: str) -> float:
    """Part by which the second seed is larger; networks of a setting have one size."""
    return 0.0 if metric.startswith("params") else 0.001


def _flat(setting: Setting) -> dict[str, float]:
    return {"rfid": 3.0, "gfid": 4.0, "psnr": 20.0, "codebook_usage": 1 / 1.001}
