"""Runs as every reader returns them: tables of text and numbers, one row per stored value."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import polars as pl

RUN_SCHEMA = {"run_id": pl.String(), "started": pl.Int64(), "ended": pl.Int64()}
TEXT_SCHEMA = {"run_id": pl.String(), "key": pl.String(), "value": pl.String()}
METRIC_SCHEMA = {"run_id": pl.String(), "key": pl.String(), "value": pl.Float64()}
CURVE_SCHEMA = {
    "run_id": pl.String(),
    "step": pl.Int64(),
    "time": pl.Int64(),
    "value": pl.Float64(),
}


@dataclass(frozen=True)
class Records:
    """Runs as stored; NaN and infinity are themselves again.

    Attributes:
        runs: `RUN_SCHEMA`, times in milliseconds since 1970; `ended` is null while open.
        tags: `TEXT_SCHEMA`, as are params: the store knows text only.
        metrics: `METRIC_SCHEMA`, the newest value of each.
    """

    runs: pl.DataFrame
    tags: pl.DataFrame
    params: pl.DataFrame
    metrics: pl.DataFrame


def restored(value: pl.Expr, is_nan: pl.Expr | bool) -> pl.Expr:
    """Undo the store's encoding: NaN as (0, is_nan), infinity as the largest float."""
    infinite = value.abs() >= sys.float_info.max
    nan = pl.lit(is_nan) if isinstance(is_nan, bool) else is_nan.cast(pl.Boolean)
    return (
        pl.when(nan)
        .then(float("nan"))
        .when(infinite)
        .then(value.sign() * float("inf"))
        .otherwise(value)
    )
