"""Differences besides the question, each planted alone into a table without any."""

from __future__ import annotations

import polars as pl
import pytest

from analysis import load_runs
from analysis.claims.confounds import find_confounds

IS_LARGE = pl.col("tokenizer") == "S-L"


@pytest.fixture(scope="module")
def clean(uri: str) -> pl.DataFrame:
    """Read the grid without S-B, which has one seed."""
    return load_runs("decoder_scaling", uri).filter(pl.col("tokenizer") != "S-B")


def test_a_clean_table_has_none(clean: pl.DataFrame) -> None:
    assert find_confounds(clean) == []


def with_value(name: str, large: object, small: object) -> pl.Expr:
    return pl.when(IS_LARGE).then(pl.lit(large)).otherwise(pl.lit(small)).alias(name)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            [with_value("protocol.psnr", "50000 images", "2000 images")],
            "PSNR was measured in 2 ways: S-S, S-S +reg: 2000 images; S-L",
        ),
        (
            [with_value("tokenizer.steps", 200, 100), pl.lit(32).alias("tokenizer.batch_size")],
            "Tokenizers were trained on different numbers of images (S-S, S-S +reg: 3,200; "
            "S-L, S-L +reg: 6,400)",
        ),
        (
            [with_value("tokenizer.teacher", "dinov2", "resnet50")],
            "different teachers (resnet50: S-S +reg; dinov2: S-L +reg)",
        ),
        (
            [with_value("generator.dropout", 0.2, 0.1)],
            "generator.dropout differs, though it is no axis "
            "(0.1: S-S, S-S +reg; 0.2: S-L, S-L +reg)",
        ),
        ([pl.lit("a,b").alias("git_sha")], "ran from 2 versions of the code: a, b"),
        ([pl.lit(True).alias("git_dirty")], "uncommitted changes"),
        (
            [pl.lit(9.0).alias("rfid"), pl.lit(256).alias("evaluation.num_images")],
            "rFID is from 256 images",
        ),
    ],
)
def test_each_confound_is_named(
    clean: pl.DataFrame, columns: list[pl.Expr], expected: str
) -> None:
    found = find_confounds(clean.with_columns(columns))
    assert len(found) == 1, found
    assert expected in found[0]


def test_equal_training_lengths_in_other_batches_are_equal(clean: pl.DataFrame) -> None:
    same = clean.with_columns(
        with_value("tokenizer.steps", 50, 100), with_value("tokenizer.batch_size", 64, 32)
    )
    assert not [s for s in find_confounds(same) if "numbers of images" in s]


def test_unequal_seeds_are_named(uri: str) -> None:
    found = find_confounds(load_runs("decoder_scaling", uri))
    assert found == [
        "Settings have different numbers of complete seeds "
        "(1: S-B; 2: S-S, S-S +reg, S-L, S-L +reg)."
    ]


def test_what_the_sweep_derives_and_what_is_computed_confound_nothing(clean: pl.DataFrame) -> None:
    follows = clean.with_columns(
        with_value("derived.bits", 32, 16), with_value("computed.flops.train", 2e9, 1e9)
    )
    assert find_confounds(follows) == []
