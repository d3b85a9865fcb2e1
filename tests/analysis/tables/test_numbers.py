"""The result table as numbers."""

from __future__ import annotations

import polars as pl
import pytest

from analysis.store.runs import load_runs
from analysis.tables.numbers import HALF_WIDTH, best_rows, setting_numbers, trial_numbers


def test_a_row_per_setting_with_numbers_in_printed_units(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri)
    table = setting_numbers(runs)
    assert table["tokenizer"].to_list() == ["S-S", "S-S", "S-B", "S-L", "S-L"]
    assert table["seeds"].to_list() == [2, 2, 1, 2, 2]
    assert table["tokenizer.semantic_weight"].dtype.is_numeric()
    first = table.row(0, named=True)
    assert first["psnr"] == pytest.approx(17.905)
    assert first[HALF_WIDTH + "psnr"] == pytest.approx(0.005)
    assert first["probe_accuracy"] == pytest.approx(30.05)  # percent
    assert first["run_id"] in runs["run_id"]
    alone = table.row(2, named=True)
    assert (alone["rkid"], alone[HALF_WIDTH + "psnr"]) == (None, None)
    assert HALF_WIDTH + "params_total" not in table.columns  # exact


def test_seeds_are_those_that_are_complete(uri: str) -> None:
    assert "seeds planned" not in setting_numbers(load_runs("decoder_scaling", uri)).columns
    table = setting_numbers(load_runs("tokenizer_scaling", uri))
    assert table["tokenizer"].to_list() == ["S-S", "S-B", "S-L"]
    assert (table["seeds"].to_list(), table["seeds planned"].to_list()) == ([1, 1, 0], [1, 1, 1])


def test_a_row_per_trial(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri)
    table = trial_numbers(runs)
    assert table.height == runs.height
    usage = [100 * value for value in runs["codebook_usage"]]  # percent
    assert table["codebook_usage"].to_list() == pytest.approx(usage)


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("psnr", [9.0, 12.0, None, 12.0], [1, 3]),
        ("rfid", [1247.0, 984.0, float("nan")], [1]),
        ("psnr", [3.0, 3.0], []),  # no difference
        ("params_total", [1.0, 2.0], []),  # neither is better
    ],
)
def test_the_best_of_a_column(metric: str, values: list[float | None], best: list[int]) -> None:
    assert best_rows(pl.DataFrame({metric: values}, strict=False), metric) == best
