from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis import comparisons, load_runs
from analysis.claims.findings import SettingComparison


@pytest.fixture(scope="session")
def grid(uri: str) -> dict[tuple[str, str, str], SettingComparison]:
    found = comparisons(load_runs("decoder_scaling", uri))
    return {(c.metric, c.first, c.second): c for c in found}


def by_ends(found: list[SettingComparison]) -> dict[tuple[str, str, str], str]:
    return {(c.metric, c.first, c.second): c.sentence for c in found}


def test_what_two_seeds_show(grid: dict[tuple[str, str, str], SettingComparison]) -> None:
    psnr = grid["psnr", "S-S", "S-L"]
    assert psnr.difference is not None
    assert psnr.difference.differences == pytest.approx((0.2, 0.1999))
    assert psnr.seed_spread == pytest.approx(0.01)
    assert "Higher (better): an effect is shown (q = " in psnr.sentence
    assert "Not monotone: S-S 17.91 (2 seeds), S-B 18.65 (1 seed), S-L 18.10" in psnr.sentence


def test_what_they_do_not_show(grid: dict[tuple[str, str, str], SettingComparison]) -> None:
    lpips, kid = grid["lpips", "S-S", "S-L"], grid["rkid", "S-S", "S-L"]
    assert "+0.004 and −0.007 on seeds 0, 1" in lpips.sentence
    assert ". No effect is shown (q = " in lpips.sentence
    assert " on both seeds, but no effect is shown (q = " in kid.sentence
    assert kid.looked >= len([one for one in grid.values() if one.q is not None])


def test_the_loss_is_set_against_reconstruction(
    grid: dict[tuple[str, str, str], SettingComparison],
) -> None:
    rise, drop = grid["ar_val_loss", "S-S", "S-L"], grid["ar_val_loss", "S-S", "S-S +reg"]
    assert rise.difference is not None
    assert drop.difference is not None
    assert rise.difference.differences == pytest.approx((0.31, 0.37))
    assert drop.difference.differences == pytest.approx((-0.30, -0.55))
    assert "Higher (worse) on both seeds, but no effect is shown" in rise.sentence
    assert "PSNR moved by −0.26 and −0.57 dB on seeds 0, 1 meanwhile" in drop.sentence
    assert ("ar_val_loss", "S-L", "S-L +reg") in grid


def test_one_seed_tells_nothing_about_chance(uri: str) -> None:
    sentences = [c.sentence for c in comparisons(load_runs("tokenizer_scaling", uri))]
    assert len(sentences) == 2, "PSNR and LPIPS only: the failed trial has no AR loss"
    assert all("cannot be told from one seed" in sentence for sentence in sentences)


def test_two_protocols_are_not_compared(uri: str) -> None:
    runs = load_runs("tokenizer_scaling", uri).with_columns(
        pl.Series("protocol.psnr", ["A", "A", "B"])
    )
    (psnr,) = [c for c in comparisons(runs) if c.metric == "psnr"]
    assert psnr.difference is None
    assert "not compared, measured in two ways (A | B)" in psnr.sentence


def test_regularisation_that_no_label_says_is_said(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri).filter(pl.col("tokenizer.semantic_weight") > 0)
    sentences = [c.sentence for c in comparisons(runs)]
    assert sentences[0].startswith("PSNR, S-S → S-L (all with semantic regularisation): +0.62")
    metrics = ("PSNR", "LPIPS", "rKID", "AR val loss", "gKID", "probe acc.")
    assert len(sentences) == len(metrics)
    assert all(s.startswith(m) for s, m in zip(sentences, metrics, strict=True)), sentences


def test_many_seeds_are_summarised(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri).filter(pl.col("seed") == 0)
    copies = [runs.with_columns(pl.lit(s, pl.Int64).alias("seed")) for s in range(1, 6)]
    found = {
        (c.metric, c.first, c.second): c.sentence for c in comparisons(pl.concat([runs, *copies]))
    }
    assert "PSNR, S-S → S-L: +0.20 dB (+0.20 to +0.20 on 6 seeds)" in found["psnr", "S-S", "S-L"]
    flat = runs.with_columns(pl.lit(1.0).alias("psnr"))
    flat = pl.concat([flat, flat.with_columns(pl.lit(1, pl.Int64).alias("seed"))])
    assert "No difference." in comparisons(flat)[0].sentence


def test_three_seeds_are_named_as_such(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri)
    third = runs.filter(pl.col("seed") == 1).with_columns(
        pl.lit(2, pl.Int64).alias("seed"), pl.col("psnr") + 0.005
    )
    found = {
        (c.metric, c.first, c.second): c.sentence for c in comparisons(pl.concat([runs, third]))
    }
    assert "Higher (better): an effect is shown" in found["psnr", "S-S", "S-L"]


def test_a_difference_of_zero_has_no_sign(uri: str) -> None:
    """Two seeds rise and one stays as it was: no seed says otherwise."""
    runs = load_runs("decoder_scaling", uri).filter(pl.col("seed") == 0)
    rise = pl.when(pl.col("tokenizer") == "S-L").then(pl.lit(1.0)).otherwise(0.0)
    parts = [
        runs.with_columns(pl.lit(seed, pl.Int64).alias("seed"), psnr=rise * change)
        for seed, change in enumerate((0.0, 0.01, 0.3))
    ]
    found = by_ends(comparisons(pl.concat(parts)))
    assert "Higher (better) on all 3 seeds, but no effect is shown" in found["psnr", "S-S", "S-L"]


def test_of_noise_few_studies_say_that_an_effect_is_shown(uri: str) -> None:
    """Of nothing but chance any sentence is false, so that 5 % of studies may have one."""
    runs = load_runs("decoder_scaling", uri).filter(pl.col("seed") == 0)
    names = [c.metric for c in comparisons(runs)]
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(60):
        drawn = {name: rng.normal(size=3 * runs.height) for name in set(names)}
        seeds = [runs.with_columns(pl.lit(s, pl.Int64).alias("seed")) for s in range(3)]
        noise = pl.concat(seeds).with_columns(
            pl.Series(name, values) for name, values in drawn.items()
        )
        wrong += any("an effect is shown" in c.sentence for c in comparisons(noise))
    # 5 % of 60 is 3, with a standard deviation of 1.7.
    assert wrong <= 8
