"""The table of runs for other programs: files, units, pandas, and what is absent from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from analysis.store.requests import RequestError
from analysis.store.runs import STAGE_FACTS, measured
from gigatok.names import METRICS, PARAM_SEED, QUANTITIES, SIZES

if TYPE_CHECKING:
    import pandas


def units(runs: pl.DataFrame) -> dict[str, str]:
    """Map every numeric column that has a unit to it, such as `dB` or `nats/token`."""
    found = {name: QUANTITIES[name].unit for name in runs.columns if name in (*METRICS, *SIZES)}
    found |= {name: "s" for name in runs.columns if name.startswith(STAGE_FACTS)}
    return {name: unit for name, unit in found.items() if unit} | {"launched": "s since 1970"}


def write_table(runs: pl.DataFrame, path: Path) -> None:
    """Write the table: Parquet with the unit of each column as its field metadata, or CSV.

    Raises:
        RequestError: the suffix is neither.
    """
    import pyarrow  # a quarter of a second, which only an export needs
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        path.write_bytes(csv_bytes(runs))
    elif path.suffix == ".parquet":
        table, unit = runs.to_arrow(), units(runs)
        fields = [
            f.with_metadata({"unit": unit[f.name]}) if f.name in unit else f for f in table.schema
        ]
        parquet.write_table(table.cast(pyarrow.schema(fields)), path)
    else:
        raise RequestError(f"--out {path}: give a file that ends in .parquet or .csv")


def csv_bytes(table: pl.DataFrame) -> bytes:
    """Write any table as the bytes of a CSV; lists as their items with a space between."""
    # CSV has no lists, and polars refuses to write them.
    lists = [name for name, kind in table.schema.items() if isinstance(kind, pl.List)]
    texts = [pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists]
    return table.with_columns(texts).write_csv().encode()


def to_pandas(runs: pl.DataFrame) -> pandas.DataFrame:
    """Convert the table for pandas; `attrs["units"]` holds the units, a missing number is NaN."""
    frame = runs.to_pandas()
    frame.attrs["units"] = units(runs)
    return frame


def missing(runs: pl.DataFrame) -> pl.DataFrame:
    """List the results that are absent: columns `trial`, `seed`, `state`, `metric`, `found`.

    A metric counts as missing where some other trial has it; `found` is `null` or `NaN`.
    """
    index = ["trial", PARAM_SEED, "state"]
    long = runs.unpivot(measured(runs), index=index, variable_name="metric", value_name="found")
    number = pl.col("found").cast(pl.Float64)  # null where nothing was measured at all
    kind = pl.when(number.is_null()).then(pl.lit("null")).when(number.is_nan()).then(pl.lit("NaN"))
    return long.with_columns(found=kind).drop_nulls("found")
