"""One look for a setting, whoever asks; and no setting of the user's matplotlib."""

from __future__ import annotations

import matplotlib as mpl

from analysis.charts import style
from analysis.charts.grammar import Chart, Mark, Series, axis, with_distinct_looks
from analysis.charts.style import WITH, WITHOUT, Look


def test_each_tokenizer_has_a_colour_and_regularisation_a_shape() -> None:
    with style.applied():
        assert mpl.rcParams["pdf.fonttype"] == 42
    names = ("S-S", "S-B", "S-L", "B-L", "XL-XXL")
    colours = [style.of_tokenizer(name, regularised=True).colour for name in names]
    assert len(set(colours)) == 5
    own = style.of_tokenizer("T-L", regularised=False)
    assert own == style.of_tokenizer("S-L", regularised=False), "that of its decoder"
    assert style.of_tokenizer("64x1-96x2", regularised=True).colour not in colours
    assert own.marker != style.of_tokenizer("S-L", regularised=True).marker


def test_settings_look_alike_from_the_paper_and_from_runs() -> None:
    assert style.of_setting("tokenizer.semantic_weight", 0.5) == WITH
    assert style.of_setting("tokenizer.semantic_weight", 0.0) == WITHOUT
    assert style.of_setting("tokenizer.lr", 0.1) is None


def chart(*series: tuple[str, Look]) -> Chart:
    marks = (Mark(1.0, 1.0, (), "run"),)
    made = tuple(Series(name, marks, look) for name, look in series)
    return Chart("", axis("params_total"), axis("psnr"), made)


def test_series_that_would_look_alike_get_other_colours_in_all_charts() -> None:
    charts = [
        chart(("off", WITHOUT), ("0.5", WITH), ("1", WITH)),
        chart(("1", WITH), ("off", WITHOUT)),
    ]
    first, second = with_distinct_looks(charts)
    looks = {series.name: series.look for series in first.series}
    assert (looks["off"], looks["0.5"]) == (WITHOUT, WITH)
    assert looks["1"] not in (WITH, WITHOUT)
    assert {series.name: series.look for series in second.series}["1"] == looks["1"]


def test_no_colour_is_taken_that_a_later_series_has_of_its_own() -> None:
    (drawn,) = with_distinct_looks([chart(("off", WITHOUT), ("off, 2d", WITHOUT), ("on", WITH))])
    off, other, on = (series.look for series in drawn.series)
    assert (off, on) == (WITHOUT, WITH)
    assert other.colour not in (WITHOUT.colour, WITH.colour)


def test_the_users_matplotlib_settings_stay_out_of_figures_and_come_back() -> None:
    with mpl.rc_context({"text.usetex": True, "figure.dpi": 10, "savefig.format": "svg"}):
        with style.applied(style.PLAIN):
            for name in ("text.usetex", "figure.dpi", "savefig.format"):
                assert mpl.rcParams[name] == mpl.rcParamsDefault[name]
        assert mpl.rcParams["text.usetex"] is True
