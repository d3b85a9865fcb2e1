"""Measures of complexity against generation scores: one pair per setting, never more."""

from __future__ import annotations

import polars as pl
import pytest

from analysis import load_runs
from analysis.statistics.complexity import MEASURES, complexity_relations
from gigatok.names import METRICS


@pytest.fixture(scope="module")
def grid(uri: str) -> pl.DataFrame:
    return load_runs("decoder_scaling", uri)


def test_every_measure_is_a_metric_with_a_source() -> None:
    assert MEASURES.keys() <= METRICS.keys()


def test_settings_are_counted_not_seeds(grid: pl.DataFrame) -> None:
    relations = {r.measure: r for r in complexity_relations(grid, ["gkid"])}
    loss = relations["ar_val_loss"]
    assert loss.settings == ("S-S", "S-S +reg", "S-L", "S-L +reg"), "S-B has no gKID"
    assert loss.correlation is not None
    assert loss.correlation.n == 4
    assert "n = 4 settings" in loss.sentence
    assert "no association is shown" in loss.sentence
    assert "effective_rank" not in relations, "no trial has it"


def test_an_association_that_is_there_is_found(grid: pl.DataFrame) -> None:
    many = pl.concat(
        [
            grid.head(1).with_columns(
                pl.lit(0.01 * i).alias("tokenizer.semantic_weight"),
                pl.lit(float(i)).alias("effective_rank"),
                pl.lit(100.0 - i**2).alias("gkid"),
                pl.lit(f"run {i}").alias("run_id"),
            )
            for i in range(1, 9)
        ]
    )
    (found,) = [r for r in complexity_relations(many, ["gkid"]) if r.measure == "effective_rank"]
    assert found.correlation is not None
    assert found.correlation.rho == -1
    assert "n = 8 settings: an association (q = " in found.sentence


def test_protocols_of_the_score_are_never_mixed(grid: pl.DataFrame) -> None:
    mixed = grid.with_columns(
        pl.when(pl.col("tokenizer") == "S-L")
        .then(pl.lit("other"))
        .otherwise(pl.col("protocol.gkid"))
        .alias("protocol.gkid")
    )
    for relation in complexity_relations(mixed, ["gkid"]):
        assert relation.correlation is None
        assert "measured in 2 ways" in relation.sentence
