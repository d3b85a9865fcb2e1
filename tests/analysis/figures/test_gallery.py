from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import RequestError
from analysis.charts import style
from analysis.charts.drawing import draw, draw_chart
from analysis.charts.files import changes, write
from analysis.charts.grammar import Chart, FigureData
from analysis.charts.records import provenance
from analysis.charts.style import WITHOUT
from analysis.figures import gallery
from analysis.figures.parts.registry import FIGURES, StoreTrials
from analysis.paper.published import facts, notes, select
from gigatok.names import FigureChoice

pytestmark = pytest.mark.heavy
_EXPECTED = {
    "dilemma": (["rFID ↓", "gFID ↓", "AR val loss (nats/token) ↓"], 9),
    "cure": (
        [
            *("generation: gFID, better →", "rFID ↓", "gFID ↓", "AR val loss (nats/token) ↓"),
            *("probe acc. (%) ↑", "LPIPS ↓"),
        ],
        36 + 5 * 2,
    ),
    "entropy": (["codebook usage (%) ↑", "perceptual loss ↓"], 32),
    "probe-agreement": (["LlamaGen-XL: gFID", "LlamaGen-XL: probe acc. (%)"], 2),
    "1d-2d": (["rFID ↓", "gFID ↓", "probe acc. (%) ↑"], 18 + 3 * 2),
    "encoder-decoder": (["rFID ↓", "gFID ↓", "probe acc. (%) ↑"], 20 + 3 * 2),
    "semantic-ablations": (["rFID ↓", "gFID ↓", "probe acc. (%) ↑"] * 3, 30 + 6 + 3 * 2),
    "generators": (["gFID ↓", "probe acc. (%) ↑"], 10),
    "probe-accuracy": (["probe acc. (%) ↑"], 10),
    "decode-share": (["time in decoder (%)"], 9),
    "systems": (["gFID ↓", "gFID ↓"], 56),
    "peers": (["gFID ↓", "rFID ↓", "gFID ↓", "rFID by AToken"], 7 + 6 + 9 + 6 + 2),
}
"""Labels of y and number of marks, fronts and confounds included, of each published figure."""


@pytest.fixture(scope="module")
def runs(uri: str) -> StoreTrials:
    return gallery.open_trials(uri, "micro")


def marks(plate: FigureData) -> list[tuple[float, float]]:
    return [(m.x, m.y) for chart in plate.charts for s in chart.series for m in s.marks]


def test_every_published_figure_is_expected() -> None:
    assert _EXPECTED.keys() == {name for name, figure in FIGURES.items() if figure.published}


@pytest.mark.parametrize("name", _EXPECTED)
def test_published_figures(name: str) -> None:
    plate = gallery.named_figure(name, "published")
    labels, count = _EXPECTED[name]
    figure = draw(plate)
    places = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_ylabel().replace("\n", " ") for axes in places] == labels
    # Of charts below each other the lowest has the words of x.
    assert places[-1].get_xlabel()
    assert len(marks(plate)) == count
    assert words_outside(figure) == []


@pytest.mark.parametrize("name", _EXPECTED)
def test_every_published_mark_leads_to_a_row(name: str) -> None:
    by_id = {fact.id: fact for fact in facts()}
    record = provenance(gallery.named_figure(name, "published"))
    for mark in record["numbers"]:
        used = [by_id[source] for source in mark["sources"]]
        assert used
        shares = [fact.value * (100 if fact.unit == "fraction" else 1) for fact in used]
        assert any(mark["y"] == pytest.approx(share) for share in shares), mark
        sources = [record["sources"][fact.id] for fact in used]
        assert all(source["citation"] and source["place"] for source in sources)
        assert mark["reading"] == next(
            (fact.reading for fact in used if fact.reading != "printed"), "printed"
        )


def test_the_cure_is_the_papers_figure_7() -> None:
    plane, *_ = gallery.named_figure("cure", "published").charts
    lines = {s.name: [(m.x, m.y) for m in s.marks] for s in plane.series}
    assert lines["without semantic regularisation (epochs not stated)"] == [
        (1.58, 9.46),
        (1.216, 9.641),
        (1.135, 11.36),
    ]
    assert lines["with semantic regularisation (200 epochs unless marked)"] == [
        (1.0125, 6.099),
        (0.8932, 5.8),
        (0.8121, 4.821),
    ]


def test_confounds_are_on_the_figures_they_concern() -> None:
    concerned = {
        1: ("cure", "1d-2d", "probe-accuracy"),
        2: ("cure", "encoder-decoder", "semantic-ablations"),
        3: ("semantic-ablations",),
        6: ("dilemma", "cure", "probe-accuracy"),
        8: ("1d-2d",),
    }
    words = {
        1: "training length",
        2: "three rows",
        3: "not S-S at layer 3",
        6: "training-only head",
    }
    words[8] = "135.5 M"
    for number, names in concerned.items():
        for name in names:
            assert words[number] in " ".join(gallery.named_figure(name, "published").notes)


def charts_of(name: str) -> dict[str, list[Chart]]:
    """Sort the charts of a published figure by the metric that they show."""
    found: dict[str, list[Chart]] = {}
    for chart in gallery.named_figure(name, "published").charts:
        found.setdefault(chart.y.key, []).append(chart)
    return found


def values(chart: Chart, beginning: str) -> list[tuple[float, float]]:
    """List the marks of the only series whose name begins so."""
    (series,) = (s for s in chart.series if s.name.startswith(beginning))
    return [(mark.x, mark.y) for mark in series.marks]


def test_training_lengths_are_at_the_points() -> None:
    for name in ("cure", "1d-2d"):
        for chart in gallery.named_figure(name, "published").charts:
            named = {mark.label: mark.x for s in chart.series for mark in s.marks if mark.label}
            if not chart.big:
                assert named == {"100 ep.": 136.0}
            legend = " ".join(series.name for series in chart.series)
            assert "200 epochs unless marked" in legend
            assert "epochs not stated" in legend


def test_other_rows_of_one_tokenizer_are_beside_it() -> None:
    assert values(charts_of("cure")["rfid"][0], "S-B in Table 2") == [(232, 0.94)]
    assert values(charts_of("cure")["gfid"][0], "S-B in Table 6") == [(0.85, 5.55)]
    assert values(charts_of("encoder-decoder")["gfid"][0], "S-B in Figure 7")[0][1] == 5.8
    layer, teacher, weight = charts_of("semantic-ablations")["gfid"]
    assert values(layer, "repeated") == [(3, 6.39)]
    assert values(teacher, "repeated") == [(2, 5.65), (2, 5.8)]
    assert values(weight, "repeated") == [(0.5, 6.1)]


def test_sizes_show_the_training_head_and_what_a_recipe_builds() -> None:
    ticks = [text for _, text in charts_of("dilemma")["rfid"][0].x.ticks]
    assert ticks == ["S-S\n129+7", "S-B\n218+14", "B-L\n598+24"]
    heads = [fact.value for fact in select("Released recipes", metric="params_head")]
    assert "/".join(f"{head:.1f}" for head in heads) in notes()[6].short
    (built,) = select("Released recipes", metric="params_total")
    assert f"{built.value:g} M" in notes()[8].short
    (line,) = [s for s in charts_of("1d-2d")["rfid"][0].series if "2D S-S at the" in s.name]
    assert [(mark.x, mark.y) for mark in line.marks] == [(111, 1.2208), (built.value, 1.2208)]
    assert line.marks[1].origins[-1]["id"] == built.id


def test_digitised_marks_are_hollow_and_printed_ones_are_not() -> None:
    figure = Figure()
    hollow = draw_chart(figure.add_subplot(), gallery.named_figure("1d-2d", "published").charts[0])
    filled = draw_chart(
        figure.add_subplot(), gallery.named_figure("decode-share", "published").charts[0]
    )
    faces = [
        {line.get_markerfacecolor() for line in axes.lines if len(line.get_xdata()) == 1}  # type: ignore[arg-type]
        for axes in (hollow, filled)
    ]
    assert faces[0] == {"white"}
    assert "white" not in faces[1]


def test_names_of_the_paper_find_their_figures() -> None:
    assert [gallery.known(n) for n in ("Figure 7", "figure-9", "cure")] == [
        "cure",
        "1d-2d",
        "cure",
    ]
    assert gallery.known("decoder_scaling") is None


@pytest.mark.parametrize("venue", ["neurips", "cvpr"])
def test_a_venue_gives_width_and_font(venue: str) -> None:
    page = style.VENUES[venue]
    plate = gallery.named_figure("dilemma", "published")
    text, column = draw(plate, page), draw(plate, style.page(venue, column=True))
    assert text.get_figwidth() == page.width
    assert column.get_figwidth() == page.column
    assert text.axes[1].title.get_fontfamily() == ["STIXGeneral"]


def test_runs_become_marks_with_seeds_and_origins(runs: StoreTrials) -> None:
    plate = gallery.named_figure("cure", "runs", runs)
    (chart,) = [c for c in plate.charts if c.y.key == "ar_val_loss"]
    assert chart.x.key == "params_tokenizer"
    assert [s.name for s in chart.series] == ["without semantic regularisation"]
    found = {m.label: m for s in chart.series for m in s.marks}
    assert found["S-S"].y == pytest.approx(3.93)
    assert found["S-S"].x == pytest.approx(0.68)
    (source,) = found["S-S"].origins
    assert source["git_sha"] == "c0ffee"
    assert source["stage_keys"]["train_tokenizer"].startswith("stagekey-")
    assert "S-B" not in found, "a loss that is NaN is not drawn"


def test_what_runs_lack_and_what_else_differs_is_written_below(runs: StoreTrials) -> None:
    notes = " ".join(gallery.named_figure("cure", "runs", runs).notes)
    assert "S-B seed=0: COMPLETE;" in notes
    assert "gKID is ∞; AR val loss is NaN." in notes
    assert "S-L seed=0: FAILED (train_tokenizer: out of memory); no rKID" in notes
    assert "different numbers of complete seeds (0: S-L; 1: S-S, S-B)" in notes
    grid = runs.table.with_columns(
        pl.when(pl.col("tokenizer") == "S-L").then(200).otherwise(100).alias("tokenizer.steps"),
        pl.lit(32).alias("tokenizer.batch_size"),
    )
    unequal = gallery.named_figure("encoder-decoder", "runs", StoreTrials(grid, runs.uri))
    assert "trained on different numbers of images" in " ".join(unequal.notes)


@pytest.mark.parametrize("name", _EXPECTED)
def test_no_word_leaves_a_narrow_column(name: str) -> None:
    figure = draw(gallery.named_figure(name, "published"), style.page("cvpr", column=True))
    assert words_outside(figure) == []
    assert figure.get_figheight() < 10, "longer than a page"
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert not any(re.search(r"\([^)]*\n", title) for title in titles), "a broken bracket"


def words_outside(figure: Figure) -> list[str]:
    """Titles, labels and names of marks that the edge of the page cuts."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    found = []
    for axes in figure.axes:
        own = [part for part in axes.get_children() if isinstance(part, Text)]
        for text in (axes.xaxis.label, axes.yaxis.label, *own):
            box = text.get_window_extent(renderer)
            if text.get_text() and (box.x0 < -3 or box.x1 > figure.bbox.x1 + 3):
                found.append(text.get_text())
    return found


def test_means_of_seeds_have_intervals_and_every_run(runs: StoreTrials) -> None:
    plate = gallery.named_figure("encoder-decoder", "runs", runs)
    assert [c.y.key for c in plate.charts] == ["rkid", "gkid", "probe_accuracy"]
    (point,) = [
        m
        for s in plate.charts[2].series
        for m in s.marks
        if m.label == "S-S" and s.name == "without semantic regularisation"
    ]
    assert point.y == pytest.approx(30.05), "percent, mean of two seeds"
    assert point.y_bar is not None
    assert (point.y_bar.low, point.y_bar.high) == (pytest.approx(29.3), pytest.approx(30.8))
    assert len(point.origins) == 2


def test_both_sources_have_a_panel_each(runs: StoreTrials) -> None:
    plate = gallery.named_figure("probe-accuracy", "both", runs)
    assert plate.readings == {"digitised", "printed", "run"}
    assert [c.title for c in plate.charts] == ["paper", "runs"]
    assert "compare shapes" in " ".join(plate.notes)
    assert draw(plate).axes
    looks = {s.name: s.look for s in plate.charts[1].series}
    assert looks["runs: without semantic regularisation"] == WITHOUT, "as the paper's"


def test_what_is_not_shown_is_said_by_the_title_of_its_chart(runs: StoreTrials) -> None:
    missing = gallery.named_figure("cure", "both", runs).missing
    assert "Code complexity: S-B (no AR val loss), S-L (no AR val loss)" in missing


def test_curves_of_any_logged_name(runs: StoreTrials) -> None:
    plate = gallery.named_figure("training-curves", "runs", runs, FigureChoice(y=("train/loss",)))
    (chart,) = plate.charts
    assert [[m.y for m in s.marks] for s in chart.series] == [[0.9, 0.6, 0.5]] * 3


@pytest.mark.parametrize(
    "name", ["1d-2d", "generators", "semantic-ablations", "training-duration"]
)
def test_a_figure_without_runs_names_the_sweep_to_launch(name: str, runs: StoreTrials) -> None:
    with pytest.raises(RequestError, match=r"python -m orchestration\.launch") as error:
        gallery.named_figure(name, "runs", StoreTrials(runs.table.clear(), runs.uri))
    assert FIGURES[name].sweeps[0] in str(error.value)


def test_files_and_what_changed_in_them(tmp_path: Path) -> None:
    plate = gallery.named_figure("dilemma", "published")
    old, new = tmp_path / "old", tmp_path / "new"
    paths = write(plate, old, ("pdf", "png", "svg"))
    assert [p.name for p in paths] == [
        f"dilemma.{s}" for s in ("pdf", "png", "svg", "csv", "json")
    ]
    write(plate, new, ("pdf", "png", "svg"))
    assert changes(old, new) == [], "equal data give equal files"
    rows = list(csv.DictReader((old / "dilemma.csv").open(encoding="utf-8")))
    assert (rows[0]["x"], rows[0]["y"], rows[0]["reading"]) == ("136.0", "1.5797", "digitised")
    assert rows[0]["sources"] == "gigatok/figure-3/01"
    written = json.loads((old / "dilemma.json").read_text(encoding="utf-8"))
    assert written["sources"]["gigatok/figure-3/01"]["error"] == 0.002


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    plate = gallery.named_figure("decode-share", "published")
    write(plate, tmp_path / "new", ("png",))
    (chart,) = plate.charts
    first, *others = chart.series
    moved = (replace(first.marks[0], y=99.0), *first.marks[1:])
    changed = replace(chart, series=(replace(first, marks=moved), *others))
    write(replace(plate, charts=(changed,)), tmp_path / "old", ("png",))
    (tmp_path / "old" / "decode-share.json").unlink()
    said = changes(tmp_path / "old", tmp_path / "new")
    assert any(line.endswith("decode-share.png: drawn differently") for line in said)
    assert any("decode-share.csv: -" in line and "99.0" in line for line in said)
    assert any("decode-share.csv: +" in line and "3.7" in line for line in said)
    assert any(line.endswith("decode-share.json: missing") for line in said)
