"""Trials that differ only in their seed, as one group with a name.

What varies decides which columns identify a group; tables and figures both start here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from analysis.statistics.estimates import (
    MIN_SEEDS_FOR_T,
    Interval,
    Seed,
    SeedEstimate,
    estimate,
    with_standard_error,
)
from analysis.store.requests import RequestError
from analysis.store.runs import PROTOCOL, params_of
from gigatok.names import METRICS, PARAM_SEED, PARAM_TOKENIZER

SEMANTIC_WEIGHT = "tokenizer.semantic_weight"
UNRECORDED = "protocol not recorded"
_NAMED_BY_TOKENIZER = ("tokenizer.encoder", "tokenizer.decoder")
"""Keys that the tokenizer's name already says."""

_IN_SEVERAL_SECTIONS = {
    *("batch_size", "layers", "lr", "name", "num_images"),
    *("size", "steps", "weight_decay", "width"),
}
"""Last parts of keys that need their section to be understood."""

Row = Mapping[str, Any]


def seed_of(row: Row) -> Seed:
    """Find the seed of a trial; where none was recorded its run's id, which no other trial shares.

    A null must not stand for a seed: trials without one would merge with each other and with 0.
    """
    seed: Seed | None = row[PARAM_SEED]
    return str(row["run_id"]) if seed is None else seed


@dataclass(frozen=True)
class Group:
    """Setting and the trials that repeat it with other seeds.

    Attributes:
        identity: the varying columns and their values, tokenizer first.
        rows: one per trial, failed ones included.
        several_weights: whether the table has more than one semantic weight above 0.
    """

    identity: Mapping[str, Any]
    rows: tuple[Row, ...]
    several_weights: bool = False

    @property
    def label(self) -> str:
        """Name the tokenizer and what else varies, such as `S-L +reg`."""
        return self.words(self.identity)

    @property
    def setting_label(self) -> str:
        """Name what varies besides the tokenizer; "" where nothing does."""
        return self.words([key for key, _ in self.setting])

    def words(self, columns: Iterable[str]) -> str:
        """Name the values of some columns of its identity."""
        words = []
        for key in columns:
            value = self.identity[key]
            # With one weight above 0 the paper's "+reg" says all; with several the number must be
            # there.
            if key == PARAM_TOKENIZER:
                words.append(self.tokenizer)
            elif key == SEMANTIC_WEIGHT and not self.several_weights:
                words += ["+reg"] if value else []
            else:
                words.append(f"{short(key)}={show(value)}")
        return " ".join(words)

    @property
    def tokenizer(self) -> str:
        """Name the tokenizer as the paper does, encoder-decoder."""
        return str(self.identity[PARAM_TOKENIZER])

    @property
    def setting(self) -> tuple[tuple[str, Any], ...]:
        """List all that identifies the group but the tokenizer."""
        return tuple((k, v) for k, v in self.identity.items() if k != PARAM_TOKENIZER)

    @property
    def regularised(self) -> bool:
        """Tell whether the tokenizer was trained with semantic regularisation."""
        return bool(self.rows[0].get(SEMANTIC_WEIGHT))

    @property
    def size(self) -> float | None:
        """Count the tokenizer's parameters at inference; None where no trial got that far."""
        # All seeds of a setting build the same network.
        return next(iter(self.values("params_tokenizer").values()), None)

    @property
    def complete(self) -> int:
        """Count the trials that are complete."""
        return sum(row["state"] == "COMPLETE" for row in self.rows)

    def values(self, metric: str) -> dict[Seed, float]:
        """Map seed to value, of the seeds that have a finite one."""
        found = ((seed_of(row), row[metric]) for row in self.rows)
        # A diverged trial logs NaN: a mean over it would be NaN, so it counts as missing, and
        # tables say so.
        return {seed: v for seed, v in found if v is not None and math.isfinite(v)}

    def with_all(self, *metrics: str) -> Group:
        """Keep the seeds that have a finite value of every one of these."""
        seeds = set.intersection(*(set(self.values(metric)) for metric in metrics))
        kept = (row for row in self.rows if seed_of(row) in seeds)
        return replace(self, rows=tuple(kept))

    def protocols(self, metric: str) -> tuple[str, ...]:
        """List how the metric was measured, each way once, over the trials that have a value."""
        rows = (row for row in self.rows if row[metric] is not None)
        # Values without a recorded protocol share "", which is a protocol of its own: they mix
        # with no other.
        return tuple(dict.fromkeys(row[PROTOCOL + metric] or "" for row in rows))

    def estimate(self, metric: str, interval: Interval) -> SeedEstimate | None:
        """Average over seeds; None where nothing was measured or two protocols would mix."""
        values = self.values(metric)
        if not values or len(self.protocols(metric)) > 1:
            return None
        # A single seed has no spread over seeds, but KID knows its own sampling error.
        known = METRICS[metric]
        error = known.standard_error
        errors = self.values(error) if error else {}
        (seed, *more) = values
        if not more and seed in errors:
            return with_standard_error(values[seed], errors[seed])
        return estimate(list(values.values()), interval, share=known.share)


def groups(runs: pl.DataFrame) -> list[Group]:
    """Group trials over seeds, in the order of the table."""
    columns = identity_columns(runs)
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in runs.iter_rows(named=True):
        found.setdefault(tuple(row[c] for c in columns), []).append(row)
    # Null and 0 are both "off".
    weights = set(runs[SEMANTIC_WEIGHT]) - {None, 0} if SEMANTIC_WEIGHT in runs.columns else set()
    return [
        Group(dict(zip(columns, values, strict=True)), tuple(rows), len(weights) > 1)
        for values, rows in found.items()
    ]


def identity_columns(runs: pl.DataFrame) -> list[str]:
    """Choose the fewest columns that tell the settings apart: tokenizer, then axes, then the rest.

    A column that the chosen ones already determine is left out: where the width varies with
    the tokenizer's name, the name says it. `plan` is the last resort, for equal trials.
    """
    chosen = [PARAM_TOKENIZER]
    axes = list(dict.fromkeys(axis for row in runs["axes"].to_list() for axis in row or ()))
    for axis in axes:
        if axis not in _NAMED_BY_TOKENIZER:
            chosen += [c for c in columns_of_axis(runs, axis) if _varies(runs, c)][:1]
    candidates = [c for c in params_of(runs) if c != PARAM_SEED and _varies(runs, c)]
    # Axes first: where two columns determine each other, the one that the sweep varies must stay.
    for column in [*candidates, "scale"]:
        if column not in chosen and not _determined(runs, column, chosen):
            chosen.append(column)
    # Two plans may hold the same settings and seeds; only the plan tells those trials apart.
    seeded = [*chosen, PARAM_SEED]
    return chosen if runs.select(seeded).is_unique().all() else [*chosen, "plan"]


def ways(found: Iterable[Group], metric: str) -> list[str]:
    """List how a metric was measured over some groups, each way once."""
    return list(dict.fromkeys(way for group in found for way in group.protocols(metric)))


def require_one_way(found: Iterable[Group], metric: str, what: str) -> None:
    """Refuse to mix protocols: one quantity measured in two ways is two quantities.

    Args:
        found: the groups that `what` would go through.
        metric: name of the metric.
        what: what would mix them, such as `fit`.

    Raises:
        RequestError: the metric was measured in several ways.
    """
    several = ways(found, metric)
    if len(several) > 1:
        raise RequestError(
            f"{METRICS[metric].label} was measured in {len(several)} ways, which no {what} may "
            f"mix: {' | '.join(sorted(several))}"
        )


def choose_interval(found: Sequence[Group]) -> Interval:
    """Choose the interval of a whole table or figure: Student t where all seeds allow it."""
    # One kind for all: intervals of two kinds beside each other would be compared.
    repeated = [len(group.rows) for group in found if len(group.rows) > 1]
    enough = repeated and min(repeated) >= MIN_SEEDS_FOR_T
    return "student_t" if enough else "half_range"


def columns_of_axis(runs: pl.DataFrame, axis: str) -> list[str]:
    """List the columns of an axis, best first: a size without a letter is several params."""
    # A size given as numbers has no letter to log; its width tells most sizes apart and comes
    # first.
    parts = [f"{axis}.width", f"{axis}.layers", f"{axis}.heads"]
    return [c for c in (axis, *parts) if c in runs.columns and c != PARAM_SEED]


def _varies(runs: pl.DataFrame, column: str) -> bool:
    return runs[column].n_unique() > 1


def _determined(runs: pl.DataFrame, column: str, by: Sequence[str]) -> bool:
    # As many pairs as keys: each key has one value, so the column adds nothing.
    pairs = runs.select(*by, column).unique()
    return pairs.height == runs.select(by).unique().height


def short(column: str) -> str:
    """Drop the section of a dotted key, where the last part alone says what it is."""
    last = column.rpartition(".")[2]
    return column if last in _IN_SEVERAL_SECTIONS else last


def show(value: object, absent: str = "none") -> str:
    """Print a parameter's value as a person writes it."""
    if value is None:
        return absent
    return f"{value:g}" if isinstance(value, float) else str(value)
