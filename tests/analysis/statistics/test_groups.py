"""Seeds of trials: equal ones, different ones, and none."""

from __future__ import annotations

import polars as pl

from analysis.statistics.estimates import paired
from analysis.statistics.groups import groups
from analysis.store.runs import _typed
from gigatok.names import METRICS

LARGE = [12345678901234567890, 13611842547513532036, 13611842547513532037]


def table(seeds: list[int | None], values: list[float], decoder: str = "B") -> pl.DataFrame:
    count = len(seeds)
    blank = {name: pl.Series([None] * count, dtype=pl.Float64) for name in METRICS}
    return pl.DataFrame(
        {
            **blank,
            "psnr": values,
            "run_id": [f"{decoder}{index}" for index in range(count)],
            "tokenizer": [f"S-{decoder}"] * count,
            "seed": seeds,
            "plan": ["p"] * count,
            "scale": ["smoke"] * count,
            "axes": [["seed"]] * count,
        }
    )


def test_trials_without_a_seed_are_merged_with_nobody() -> None:
    (found,) = groups(table([0, None, None], [1.0, 2.0, 4.0]))
    assert found.values("psnr") == {0: 1.0, "B1": 2.0, "B2": 4.0}
    (other,) = groups(table([None, 0], [5.0, 7.0], "L"))
    difference = paired(found.values("psnr"), other.values("psnr"))
    assert difference is not None
    assert (difference.seeds, difference.differences) == ((0,), (6.0,))


def test_whole_numbers_beyond_63_bits_stay_what_they_are() -> None:
    typed = _typed(pl.Series("seed", [*map(str, LARGE), None]))
    assert typed.to_list() == [*map(str, LARGE), None]
    assert _typed(pl.Series("seed", [str(2**63 - 1), "0"])).to_list() == [2**63 - 1, 0]
