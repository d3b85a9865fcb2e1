"""Runs as every reader returns them: the stored texts and numbers, key by key.

A value knows its run by the row of the run in `Records.runs`: a position is joined and counted
many times faster than the 32 letters of a run id.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl

from gigatok.names import PREFIX_STAGE_RUN

RUN_SCHEMA = {"run_id": pl.String(), "started": pl.Int64(), "ended": pl.Int64()}
TEXT_SCHEMA = {"run_id": pl.String(), "key": pl.String(), "value": pl.String()}
METRIC_SCHEMA = {"run_id": pl.String(), "key": pl.String(), "value": pl.Float64()}
CURVE_SCHEMA = METRIC_SCHEMA | {"step": pl.Int64(), "time": pl.Int64()}
Parts = Mapping[str, pl.DataFrame]
"""Key -> its values in all runs: columns `run` (its row in `Records.runs`) and `value`."""
NO_TEXTS = pl.DataFrame(schema={"run": pl.UInt32(), "value": pl.String()})
"""Values of a key that no run has."""


@dataclass(frozen=True)
class Records:
    """Runs as stored; NaN and infinity are themselves again.

    Attributes:
        runs: `RUN_SCHEMA`, times in milliseconds since 1970; `ended` is null while open.
        tags: text.
        params: text, as tags are: the store knows nothing else.
        metrics: numbers, the newest value of each.
    """

    runs: pl.DataFrame
    tags: Parts
    params: Parts
    metrics: Parts

    def of(self, rows: pl.Series) -> Records:
        """Select the runs in some rows of `runs`, in that order."""
        # Old row to new row. Values of runs that are not selected get no row and are dropped.
        places = np.full(self.runs.height, -1, np.int64)
        places[rows.to_numpy()] = np.arange(len(rows))
        place = pl.Series(places).set(pl.Series(places < 0), None).cast(pl.UInt32)
        every = (self.tags, self.params, self.metrics)
        return Records(self.runs[rows], *(_of_places(parts, place) for parts in every))

    def linked(self) -> pl.Series:
        """List the ids of the stage runs that these trials link to, each once."""
        links = [p["value"] for key, p in self.tags.items() if key.startswith(PREFIX_STAGE_RUN)]
        return pl.concat([pl.Series("value", [], pl.String), *links]).unique().sort()


def batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut ids into lists of at most `size`: databases limit a query's length and its values."""
    left = iter(ids)
    while batch := list(islice(left, size)):
        yield batch


def by_key(stored: pl.DataFrame, runs: pl.DataFrame) -> Parts:
    """Cut values, as read, into those of each key, and replace their `run_id` by the run's row.

    Values of runs that are not among `runs` are dropped.
    """
    values = _numbered(stored, runs)
    parts = values.partition_by("key", as_dict=True, maintain_order=True, include_key=False)
    return {str(key): part for (key,), part in parts.items()}


def _numbered(stored: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    # Stores keep the values of a run together, so that a run is looked up once a stretch.
    ids = stored["run_id"]
    # True where a stretch of one run begins; a repeated stretch only costs a second look-up.
    is_first = (ids != ids.shift()).fill_null(value=True)
    rows = runs.select("run_id").with_row_index("run")
    stretches = ids.filter(is_first).to_frame().join(rows, "run_id", "left", maintain_order="left")
    place = stretches["run"].gather(is_first.cast(pl.UInt32).cum_sum() - 1)
    return _placed(stored.drop("run_id"), place)


def _of_places(parts: Parts, place: pl.Series) -> Parts:
    """Select the values of the runs that have a new row in `place`, which has one per old row."""
    found = {key: _placed(part, place.gather(part["run"])) for key, part in parts.items()}
    # A key that none of these runs has is no column of theirs.
    return {key: part for key, part in found.items() if part.height}


def _placed(values: pl.DataFrame, place: pl.Series) -> pl.DataFrame:
    """Select the values whose run has a row, and put it beside them."""
    columns = [name for name in values.columns if name != "run"]
    found = values.select(place.alias("run"), *columns)
    return found.filter(pl.col("run").is_not_null()) if place.null_count() else found


def restored(value: pl.Expr, is_nan: pl.Expr | bool) -> pl.Expr:
    """Undo the store's encoding: NaN as (0, is_nan), infinity as the largest float."""
    # MLflow clips to the largest float, which no metric reaches by itself.
    infinite = value.abs() >= sys.float_info.max
    nan = pl.lit(is_nan) if isinstance(is_nan, bool) else is_nan.cast(pl.Boolean)
    finite = pl.when(infinite).then(value.sign() * float("inf")).otherwise(value)
    return pl.when(nan).then(float("nan")).otherwise(finite)


def wide(parts: Parts, height: int) -> pl.DataFrame:
    """Make a row per run and a column per key: a pivot, at a fraction of its cost."""
    columns = [
        _spread(part["run"], part["value"], height).alias(key) for key, part in parts.items()
    ]
    return pl.DataFrame([pl.Series("run", range(height), pl.UInt32), *columns])


def _spread(rows: pl.Series, values: pl.Series, height: int) -> pl.Series:
    """Make a column with these values in these rows and nulls elsewhere."""
    # -1 marks a row without a value: gather turns the null that replaces it into a null.
    source = np.full(height, -1, np.int64)
    source[rows.to_numpy()] = np.arange(len(values))
    places = pl.Series(source)
    return values.gather(places.set(places < 0, None))


def optional(table: pl.DataFrame, column: str) -> pl.Expr:
    """Select a column, or nulls where no run has the tag."""
    return pl.col(column) if column in table.columns else pl.lit(None, pl.String)
