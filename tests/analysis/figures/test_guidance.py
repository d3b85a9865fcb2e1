"""The figure of guidance searches, from a store as the launcher writes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.charts.drawing import draw
from analysis.figures import gallery
from analysis.figures.curves import CHOSEN, bars_of_search
from analysis.figures.parts.registry import StoreTrials
from analysis.store.requests import RequestError
from analysis.tables.results import result_table
from gigatok.names import PREFIX_STAGE_RUN
from tests.analysis.conftest import Store

pytestmark = pytest.mark.heavy
CURVES = {
    "S-S": [(1.0, 9.0), (3.0, 5.0), (5.0, 8.0), (3.76, 4.0)],
    "S-B": [(1.0, 6.0), (3.0, 7.0), (5.0, 8.0)],
}
"""Scale and score of each, in the order of scoring."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> StoreTrials:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('searched') / 'mlflow.db'}")
    sweep = store.sweep("decoder_scaling", "aaaa1111", 1.0)
    for tokenizer, curve in CURVES.items():
        best = {"best_cfg_scale": min(curve, key=lambda point: point[1])[0], "gkid_best": 3.0}
        trial = store.trial("decoder_scaling", sweep, tokenizer, best | {"gkid": 5.0})
        stage = store._stage("decoder_scaling", sweep, "COMPLETE", "")
        store.client.set_tag(trial, PREFIX_STAGE_RUN + "search_guidance", stage)
        for step, (scale, value) in enumerate(curve):
            for name, logged in (("cfg_scale", scale), ("gkid", value), ("gkid_se", 0.5)):
                store.client.log_metric(stage, f"guidance/{name}", logged, step=step)
    return gallery.open_trials(store.uri, "micro")


def test_curves_run_over_the_scale_with_a_star_where_each_search_ended(
    searched: StoreTrials,
) -> None:
    plate = gallery.named_figure("guidance-search", "runs", searched)
    (chart,) = plate.charts
    assert (chart.x.label, chart.y.label) == (
        "guidance scale",
        "gKID while searching (x1000) ↓",
    )
    found = {series.name: series for series in chart.series}
    assert found.keys() == {"S-S", "S-B", CHOSEN}
    assert [(m.x, m.y) for m in found["S-S"].marks] == sorted(CURVES["S-S"])
    bar = found["S-B"].marks[0].y_bar
    assert bar is not None
    assert (bar.low, bar.high) == (5.5, 6.5)
    stars = {(m.x, m.y, m.label) for m in found[CHOSEN].marks}
    assert stars == {(3.76, 4.0, "3.76"), (1.0, 6.0, "1")}
    assert found["S-S"].marks[0].origins[0]["metric"] == "guidance/gkid"
    assert plate.missing == ("FID (guidance/gfid not logged)",)
    assert draw(plate).axes


def test_the_caption_says_what_the_bars_are(searched: StoreTrials) -> None:
    plate = gallery.named_figure("guidance-search", "runs", searched)
    assert any(mark.y_bar is not None for mark in plate.charts[0].series[0].marks)
    assert "Bars: standard error of KID at each scale, one search a curve" in plate.notes[0]
    assert "no interval" not in " ".join(plate.notes)


def test_without_a_bar_the_caption_says_so(searched: StoreTrials) -> None:
    (chart,) = gallery.named_figure("guidance-search", "runs", searched).charts
    bare = [
        replace(one, marks=tuple(replace(mark, y_bar=None) for mark in one.marks))
        for one in chart.series
    ]
    words = bars_of_search([replace(chart, series=tuple(bare))])
    assert words == "none, no score of the search has an error"


def test_without_a_search_it_says_how_to_launch_one(uri: str) -> None:
    with pytest.raises(RequestError, match=r"launch decoder_scaling --set guidance.search=grid"):
        gallery.named_figure("guidance-search", "runs", gallery.open_trials(uri, "micro"))


def test_the_table_has_the_fixed_and_the_best_score(searched: StoreTrials) -> None:
    head = result_table(searched.table).head
    shown = [name.partition(" (")[0] for name in head]
    assert shown[-3:] == ["gKID", "gKID, best guidance", "best guidance"]
