"""The data of any figure or table, one schema for both: a row per number, and where each is from.

The CSV holds the rows; the JSON holds the same rows, the notes, and every source once, by its id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analysis.charts.grammar import (
    DERIVED,
    Bar,
    Chart,
    ChartAxis,
    FigureData,
    Mark,
    Origin,
    Series,
)

_TEXT, _NUMBER = pl.String(), pl.Float64()
SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("chart", "series", "label", "mark", "seed"), _TEXT),
    "x_key": _TEXT,
    **dict.fromkeys(("x", "x_low", "x_high"), _NUMBER),
    **dict.fromkeys(("x_interval", "x_unit", "x_protocol", "y_key"), _TEXT),
    **dict.fromkeys(("y", "y_low", "y_high"), _NUMBER),
    **dict.fromkeys(("y_interval", "y_unit", "y_protocol"), _TEXT),
    "n": pl.Int64(),
    **dict.fromkeys(("reading", "sources"), _TEXT),
}
"""Columns of every CSV. `mark`: `mean` of `n` seeds, `seed` one of them, or `single`. Values are
in the printed units, `x_unit` and `y_unit`; a table's cell has no x. `sources`: ids in JSON."""
Record = dict[str, Any]
Coordinate = tuple[float | None, Bar | None]
"""Value and interval."""
_PER_NUMBER = ("values", "protocols")
"""Facts of a single number; the rest of an origin is a fact of its source and is written once."""


def records(data: FigureData) -> list[Record]:
    """List every number of a figure but fitted curves and fronts, which follow from the others."""
    return [row for chart in data.charts for row in chart_records(chart)]


def chart_records(chart: Chart) -> list[Record]:
    """List every number of a chart."""
    return [
        row
        for series in chart.series
        for mark in series.marks
        if mark.reading not in DERIVED
        for row in _rows(chart, series, mark)
    ]


def _rows(chart: Chart, series: Series, mark: Mark) -> Iterator[Record]:
    shared = {"chart": chart.title, "series": series.name, "label": mark.label}
    shared["reading"] = mark.reading
    is_mean = len(mark.seeds) > 1

    def row(
        x: Coordinate, y: Coordinate, origins: Sequence[Origin], n: int, **kind: str
    ) -> Record:
        across, up = coordinate("x", chart.x, *x, origins), coordinate("y", chart.y, *y, origins)
        return {**shared, **kind, **across, **up, "n": n, "sources": ids(origins)}

    # The place of a pruned trial in the picture is no measurement.
    y = None if mark.reading == "no value" else mark.y
    kind, n = "mean" if is_mean else "single", max(1, len(mark.seeds))
    yield row((mark.x, mark.x_bar), (y, mark.y_bar), mark.origins, n, mark=kind)
    for at, origin in zip(mark.seeds, mark.origins, strict=True) if is_mean else ():
        seed = str(origin.get("seed"))
        yield row((at[0], None), (at[1], None), (origin,), 1, mark="seed", seed=seed)


def coordinate(
    name: str, axis: ChartAxis, value: float | None, bar: Bar | None, origins: Sequence[Origin]
) -> Record:
    """Describe one number: its key, value, interval, unit and protocol, as columns of `SCHEMA`."""
    # Seeds of a mark are measured alike; a set of two is a defect that the file shows.
    # A dict is a set that keeps the order, so that equal data give equal files.
    protocols = dict.fromkeys(o.get("protocols", {}).get(axis.key) for o in origins)
    return {
        f"{name}_key": axis.key,
        name: value,
        f"{name}_low": bar.low if bar else None,
        f"{name}_high": bar.high if bar else None,
        f"{name}_interval": bar.kind if bar else None,
        f"{name}_unit": axis.metric.printed_unit or axis.metric.unit,
        f"{name}_protocol": " | ".join(p for p in protocols if p) or None,
    }


def ids(origins: Iterable[Origin]) -> str:
    """Join the ids of sources, each once."""
    return " ".join(dict.fromkeys(str(origin["id"]) for origin in origins))


def table_of(rows: Sequence[Record]) -> pl.DataFrame:
    """Make a table of records: columns `SCHEMA`, null where a record lacks one."""
    # With the schema given, a column of nulls keeps its type and no rows still have a head.
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in rows], SCHEMA)


def document(
    name: str,
    title: str,
    notes: Sequence[str],
    rows: Sequence[Record],
    origins: Iterable[Origin],
    **more: Any,
) -> dict[str, Any]:
    """Collect what the JSON of a figure or table holds.

    Args:
        name: file stem.
        title: printed above.
        notes: printed below.
        rows: the rows of the CSV.
        origins: origins of all rows; each source is written once, by its id.
        more: further fields, which only figures have.
    """
    facts: dict[str, Mapping[str, Any]] = {}
    for origin in origins:
        # Marks of one run repeat its facts; the file would grow with every chart.
        if origin["id"] not in facts:
            kept = {k: v for k, v in origin.items() if k not in _PER_NUMBER}
            facts[str(origin["id"])] = kept
    numbers = [{k: v for k, v in row.items() if v is not None} for row in rows]
    for row in numbers:
        row["sources"] = row["sources"].split()
    return {
        "name": name,
        "title": title,
        "notes": list(notes),
        **more,
        "numbers": numbers,
        "sources": facts,
    }


def provenance(data: FigureData) -> dict[str, Any]:
    """Tie every mark and picture of a figure to a published row, or to a run and its config."""
    marks = [m for chart in data.charts for m in chart.marks if m.reading not in DERIVED]
    shown = [origin for grid in data.grids for _, origin, _ in grid.columns]
    origins = [*(o for mark in marks for o in mark.origins), *(o for o in shown if o)]
    pictures = [
        {"title": grid.title, "sources": [str(o["id"]) for _, o, _ in grid.columns if o]}
        for grid in data.grids
    ]
    return document(
        data.name,
        data.title,
        data.notes,
        records(data),
        origins,
        source=data.source,
        missing=list(data.missing),
        pictures=pictures,
    )


def write_data(base: Path, rows: str, document: Mapping[str, Any]) -> list[Path]:
    """Write the numbers of a figure or table (CSV) and where they are from (JSON)."""
    table, origins = with_ending(base, "csv"), with_ending(base, "json")
    table.write_text(rows, encoding="utf-8")
    write_json(origins, document)
    return [table, origins]


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as every figure and table is documented: one item a line, in UTF-8."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def with_ending(base: Path, ending: str) -> Path:
    """Name a file of a figure; `with_suffix` would cut a name that holds dots."""
    return base.with_name(f"{base.name}.{ending}")
