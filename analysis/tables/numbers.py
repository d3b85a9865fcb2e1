"""The result table as numbers, which sort and filter as numbers, and lead to their trials."""

from __future__ import annotations

import polars as pl

from analysis.statistics.groups import choose_interval, groups, identity_columns
from analysis.store.runs import measured
from gigatok.names import METRICS, result_columns

Numbers = pl.DataFrame
"""Table of this module, for those who only show it."""
HALF_WIDTH = "±"
"""Prefix of the columns with half the width of an interval."""


def shown_metrics(runs: pl.DataFrame) -> list[str]:
    """List the metrics of result tables that a trial has."""
    have = measured(runs)
    return [name for name in result_columns() if name in have]


def setting_numbers(runs: pl.DataFrame) -> pl.DataFrame:
    """Make a row per setting, in printed units; null where seeds were measured in several ways.

    Returns:
        `run_id` of its first trial, what tells settings apart, `seeds` that are complete, `seeds
        planned` where that is another number, each metric, and behind it its half width under
        `HALF_WIDTH + metric` where any setting has an interval.
    """
    found = groups(runs)
    kind = choose_interval(found)
    first = pl.DataFrame({"run_id": [group.rows[0]["run_id"] for group in found]})
    columns = ["run_id", *identity_columns(runs)]
    table = first.join(runs.select(columns), "run_id", "left", maintain_order="left")
    # A setting that lost a seed must not look like one that was never given it.
    done = [group.complete for group in found]
    planned = [len(group.rows) for group in found]
    table = table.with_columns(pl.Series("seeds", done))
    if done != planned:
        table = table.with_columns(pl.Series("seeds planned", planned))
    for name in shown_metrics(runs):
        estimates = [group.estimate(name, kind) for group in found]
        factor = METRICS[name].factor
        means = [None if e is None else e.mean * factor for e in estimates]
        halves = [
            None if e is None or e.interval == "none" else e.half_width * factor for e in estimates
        ]
        table = table.with_columns(pl.Series(name, means, pl.Float64()))
        # Of a constant, such as a size, an interval of 0 would be noise in the table.
        if any(halves):
            table = table.with_columns(pl.Series(HALF_WIDTH + name, halves, pl.Float64()))
    return table


def trial_numbers(runs: pl.DataFrame) -> pl.DataFrame:
    """Make a row per trial, in printed units: `run_id`, `trial`, each metric."""
    scaled = [pl.col(name) * METRICS[name].factor for name in shown_metrics(runs)]
    return runs.select("run_id", "trial", *scaled)


def beside_empty(table: Numbers, name: str) -> Numbers:
    """Put an empty column before a table, and leave out its `run_id`."""
    return table.select(pl.lit("").alias(name), pl.exclude("run_id"))


def best_rows(table: pl.DataFrame, metric: str) -> list[int]:
    """Find the rows with the best value of a metric; none where neither direction is better."""
    better = METRICS[metric].better
    values = table[metric].drop_nans()
    if better is None or values.drop_nulls().n_unique() < 2:
        return []
    best = values.min() if better == "lower" else values.max()
    return [row for row, value in enumerate(table[metric]) if value == best]
