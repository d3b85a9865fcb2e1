"""Fronts and their gaps on points whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from analysis import load_runs
from analysis.figures.rate_distortion import plot_rate_distortion
from analysis.statistics.rate_distortion import fronts, gaps


def table(uri: str, points: list[tuple[str, float, int, float, float]]) -> pl.DataFrame:
    """Trials as (tokenizer, semantic weight, seed, bits, PSNR)."""
    one = load_runs("decoder_scaling", uri).head(1)
    rows = [
        one.with_columns(
            pl.lit(tokenizer).alias("tokenizer"),
            pl.lit(weight).alias("tokenizer.semantic_weight"),
            pl.lit(seed).cast(pl.Int64).alias("seed"),
            pl.lit(bits).alias("ar_bits_per_image"),
            pl.lit(psnr).alias("psnr"),
            pl.lit(f"{tokenizer} {weight} {seed}").alias("run_id"),
        )
        for tokenizer, weight, seed, bits, psnr in points
    ]
    return pl.concat(rows)


def line(weight: float, shift: float, noise: float, seeds: int = 3) -> list[tuple]:
    """PSNR 10, 11, 12, 13 dB at 100, 110, 120, 130 bits, moved up by `shift`."""
    rng = np.random.default_rng(int(weight * 10) + 1)
    return [
        (f"S-{i}", weight, seed, 100 + 10 * i, 10 + i + shift + noise * rng.normal())
        for i in range(4)
        for seed in range(seeds)
    ]


def test_a_point_that_loses_more_at_a_higher_rate_is_not_on_the_front(uri: str) -> None:
    runs = table(
        uri,
        [
            ("S-S", 0.0, 0, 100.0, 10.0),
            ("S-B", 0.0, 0, 120.0, 9.0),
            ("S-L", 0.0, 0, 130.0, 12.0),
        ],
    )
    (found,) = fronts(runs)
    assert [point.group.label for point in found.points] == ["S-S", "S-B", "S-L"]
    assert [point.group.label for point in found.front] == ["S-S", "S-L"]


def test_better_is_lower_for_lpips(uri: str) -> None:
    runs = table(uri, [("S-S", 0.0, 0, 100.0, 1.0), ("S-B", 0.0, 0, 120.0, 1.0)])
    worse = runs.with_columns(lpips=pl.Series([0.3, 0.4]))
    assert len(fronts(worse, "lpips")[0].front) == 1
    better = runs.with_columns(lpips=pl.Series([0.4, 0.3]))
    assert len(fronts(better, "lpips")[0].front) == 2


@pytest.mark.heavy
def test_a_known_gap_is_measured_and_its_interval_holds_it(uri: str) -> None:
    (gap,) = gaps(fronts(table(uri, line(0.0, 0.0, 0.1) + line(0.5, 0.7, 0.1))))
    assert (gap.first, gap.second) == ("semantic_weight=0", "semantic_weight=0.5")
    assert gap.rates == (100, 130)
    assert gap.gap == pytest.approx(0.7, abs=0.2)
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low < 0.7 < gap.high
    assert "a difference" in gap.sentence


@pytest.mark.heavy
def test_no_gap_is_shown_where_there_is_none(uri: str) -> None:
    (gap,) = gaps(fronts(table(uri, line(0.0, 0.0, 0.3) + line(0.5, 0.0, 0.3))))
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low < 0 < gap.high
    assert "no difference is shown" in gap.sentence


def test_one_seed_has_no_interval_and_disjoint_rates_no_gap(uri: str) -> None:
    (gap,) = gaps(fronts(table(uri, line(0.0, 0.0, 0.0, 1) + line(0.5, 1.0, 0.0, 1))))
    assert (gap.low, gap.high) == (None, None)
    assert math.isclose(gap.gap, 1.0)
    assert "no interval" in gap.sentence
    far = [(name, w, s, bits + 1000, psnr) for name, w, s, bits, psnr in line(0.5, 0, 0)]
    assert gaps(fronts(table(uri, line(0.0, 0.0, 0.0) + far))) == []


def test_plot_takes_axes_and_returns_them(uri: str) -> None:
    found = fronts(table(uri, line(0.0, 0.0, 0.1) + line(0.5, 0.7, 0.1)))
    axes = Figure().subplots()
    assert plot_rate_distortion(axes, found) is axes
    assert axes.get_ylabel() == "PSNR (dB), better →"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    families = ["semantic_weight=0", "semantic_weight=0.5"]
    assert texts == [*families, "front, in the colour of the marks"]
