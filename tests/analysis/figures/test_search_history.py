"""The figure of a search, from what its launcher logged on the sweep's run."""

from __future__ import annotations

import json
from csv import DictReader
from pathlib import Path
from typing import Any

import pytest

from analysis.charts.drawing import draw
from analysis.charts.files import write
from analysis.figures import gallery
from analysis.figures.search_history import BEST, PRUNED, history, main_chart, transfer
from analysis.store.requests import RequestError
from gigatok.names import PREFIX_SEARCH
from tests.analysis.conftest import Store

pytestmark = pytest.mark.heavy


def told(number: int, value: float | None) -> dict[str, Any]:
    state = "PRUNED" if value is None else "COMPLETE"
    return {"number": number, "state": state, "values": value and {"ar_val_loss": value}}


TRIALS = [told(0, 5.0), told(1, 4.0), told(2, None), told(3, 4.5), told(4, 1.0)]


def test_best_so_far_and_pruned_trials_in_both_directions() -> None:
    chart = history(TRIALS, "ar_val_loss", "minimize", "run")
    assert chart is not None
    found = {s.name: [(m.x, m.y) for m in s.marks] for s in chart.series}
    assert found["complete"] == [(0, 5.0), (1, 4.0), (3, 4.5), (4, 1.0)]
    assert found[BEST] == [(0, 5.0), (1, 4.0), (3, 4.0), (4, 1.0)]
    assert found[PRUNED] == [(2, pytest.approx(5.0 + 0.08 * 4.0))]
    chart = history(TRIALS, "ar_val_loss", "maximize", "run")
    assert chart is not None
    found = {s.name: [(m.x, m.y) for m in s.marks] for s in chart.series}
    assert found[BEST] == [(0, 5.0), (1, 5.0), (3, 5.0), (4, 5.0)]
    assert found[PRUNED] == [(2, pytest.approx(1.0 - 0.08 * 4.0))]
    assert history([told(0, None)], "ar_val_loss", "minimize", "run") is None


def test_the_figure_is_read_from_the_sweeps_run(
    uri: str, tmp_path_factory: Any, tmp_path: Path
) -> None:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('searched') / 'mlflow.db'}")
    sweep = store.sweep("rates", "aaaa1111", 1.0)
    store.trial("rates", sweep, "S-S", {"ar_val_loss": 1.0})
    with pytest.raises(RequestError, match="a sweep with a `search` block"):
        gallery.named_figure("search-history", "runs", gallery.open_trials(store.uri, None))
    store.client.set_tag(sweep, PREFIX_SEARCH + "study", "rates")
    with pytest.raises(RequestError, match="has no search"):
        gallery.named_figure("search-history", "runs", gallery.open_trials(store.uri, None))
    study = {
        "sampler": "tpe",
        "objectives": {"ar_val_loss": "minimize"},
        "trials": TRIALS,
        "importances": {"ar_val_loss": {"generator.dropout": 0.25, "generator.lr": 0.75}},
    }
    store.client.log_text(sweep, json.dumps({"studies": [study], "transfer": None}), "search.json")
    plate = gallery.named_figure("search-history", "runs", gallery.open_trials(store.uri, None))
    first, second = plate.charts
    assert first.series[0].marks[1].origins[0]["number"] == 1
    assert [name for _, name in second.x.ticks] == ["generator.lr", "generator.dropout"]
    assert [m.y for m in second.series[0].marks] == [0.75, 0.25]
    assert "5 trials of the sampler tpe, 1 pruned." in plate.notes[0]
    assert draw(plate).axes
    csv = next(p for p in write(plate, tmp_path, ["png"]) if p.suffix == ".csv")
    pruned = [row for row in DictReader(csv.open()) if row["series"] == "pruned"]
    assert [(row["x"], row["y"]) for row in pruned] == [("2.0", "")]


def test_a_transfer_shows_the_rate_here_and_there() -> None:
    def tried(rate: float, value: float | None) -> dict[str, Any]:
        return {**told(0, value), "params": {"tokenizer.lr": rate}}

    moved = {
        "key": "tokenizer.lr",
        "to": {"tokenizer.decoder": "B"},
        "objective": "ar_val_loss",
        "best_here": 1e-3,
        "best_there": 5e-4,
    }
    here = [tried(2e-3, 3.0), tried(1e-3, 1.0), tried(1e-1, None)]
    there = [tried(1e-3, 2.0), tried(5e-4, 1.5)]
    of_each = {"trials": here, "objectives": {"ar_val_loss": "minimize"}, "importances": {}}
    found = {"studies": [of_each, {"trials": there}], "transfer": moved}
    shown, without = main_chart(found, "run"), main_chart({**found, "transfer": None}, "run")
    assert shown is not None
    assert without is not None
    assert (shown.x.key, without.x.key) == ("tokenizer.lr", "number")
    chart = transfer([{"trials": here}, {"trials": there}], moved, "run")
    assert [(s.name, [(m.x, m.y, m.label) for m in s.marks]) for s in chart.series] == [
        ("searched here", [(1e-3, 1.0, "best"), (2e-3, 3.0, "")]),
        ("there: tokenizer.decoder=B", [(5e-4, 1.5, "best"), (1e-3, 2.0, "")]),
    ]
    assert chart.log_x
