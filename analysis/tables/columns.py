"""Columns of a result table: what sets settings apart, what follows from it, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.charts.grammar import axis, bar_of
from analysis.charts.records import Record, coordinate, ids
from analysis.statistics.axes import place
from analysis.statistics.estimates import Interval, SeedEstimate
from analysis.statistics.groups import Group, seed_of, short, show, ways
from analysis.store.runs import origin
from analysis.tables.notes import not_finite, protocol_marks
from gigatok.names import PARAMETERS, PREFIX_DERIVED, SIZES, Metric, quantity

ABSENT = "—"


@dataclass(frozen=True)
class Column:
    """Column of a result table.

    Attributes:
        name: what users call it.
        head: its heading.
        cells: a text per setting.
        numeric: they are numbers.
        records: the number behind each cell; None: there is none.
        best: rows of the best values.
    """

    name: str
    head: str
    cells: tuple[str, ...]
    numeric: bool = True
    records: tuple[Record | None, ...] = ()
    best: tuple[int, ...] = ()


def setting_column(runs: pl.DataFrame, found: Sequence[Group], name: str) -> Column:
    """Make the column of what sets settings apart."""
    cells = tuple(show(group.identity[name]) for group in found)
    return Column(name, short(name), cells, runs[name].dtype.is_numeric())


def constant_column(runs: pl.DataFrame, found: Sequence[Group], name: str) -> Column:
    """Make the column of what all seeds of a setting share: a param, or what follows from them."""
    head = quantity(name).heading if name in SIZES else short(name.removeprefix(PREFIX_DERIVED))
    cells = tuple(_constant(group, name) for group in found)
    records = tuple(_constant_record(group, name, head) for group in found)
    return Column(name, head, cells, runs[name].dtype.is_numeric(), records)


def seeds_column(found: Sequence[Group]) -> Column:
    """Make the column that counts seeds."""
    return Column("seeds", "seeds", tuple(map(_seeds, found)))


def score_column(found: Sequence[Group], metric: Metric, kind: Interval) -> Column:
    """Make the column of a metric's means and intervals."""
    marks = protocol_marks(found, metric.name)
    return Column(
        metric.name,
        metric.heading,
        tuple(_cell(group, metric, kind, marks) for group in found),
        # From the same estimates as the cells, but not rounded.
        records=tuple(_record(group, metric, kind) for group in found),
        best=tuple(best_settings(found, metric)),
    )


def best_settings(found: Sequence[Group], metric: Metric) -> list[int]:
    """Find the settings with the best mean; none where that says nothing.

    It does not where neither direction is better, where all are equal, and where values were
    measured in several ways.
    """
    if metric.better is None or len(ways(found, metric.name)) > 1:
        return []
    estimates = [group.estimate(metric.name, "none") for group in found]
    means = {row: e.mean for row, e in enumerate(estimates) if e is not None}
    if len(set(means.values())) < 2:
        return []
    best = min(means.values()) if metric.better == "lower" else max(means.values())
    return [row for row, mean in means.items() if mean == best]


def _constant(group: Group, column: str) -> str:
    """Print what all seeds share, or all that they have where it reads the seed."""
    found = dict.fromkeys(row[column] for row in group.rows if row[column] is not None)
    return ", ".join(map(show, found)) or ABSENT


def _constant_record(group: Group, column: str, head: str) -> Record | None:
    value = place(group, column)
    if value is None:
        return None
    origins = [origin(row, []) for row in group.rows]
    return {
        "series": group.label,
        "mark": "mean" if len(group.rows) > 1 else "single",
        **coordinate("y", axis(column, head), value, None, origins),
        "n": len(group.rows),
        "reading": "run",
        "sources": ids(origins),
    }


def _seeds(group: Group) -> str:
    # "2 of 3" and not 2: a setting that lost a seed must not look like one that was never given
    # it.
    total = len(group.rows)
    return str(total) if group.complete == total else f"{group.complete} of {total}"


def _cell(group: Group, metric: Metric, kind: Interval, marks: Mapping[str, str]) -> str:
    protocols = group.protocols(metric.name)
    # No mean: the seeds of this setting were not measured alike.
    if len(protocols) > 1:
        return "mixed [" + ",".join(marks[p] for p in protocols) + "]"
    found = group.estimate(metric.name, kind)
    if found is None:
        # A NaN was measured; it must not read as absent.
        logged = [row[metric.name] for row in group.rows if row[metric.name] is not None]
        return not_finite(logged[0]) if logged else ABSENT
    mark = marks[protocols[0]]
    # Only where it differs from the column of seeds: the mean is then over fewer of them.
    short_of = f" (n={found.n})" if found.n < len(group.rows) else ""
    return number(metric, found) + short_of + (f" [{mark}]" if mark else "")


def number(metric: Metric, found: SeedEstimate) -> str:
    """Print a mean with its interval, which says what kind it is where that is not over seeds."""
    mean = metric.text(found.mean)
    # Seeds of one setting have the same size: a spread of 0 is no finding.
    is_constant_count = metric.unit == PARAMETERS and found.half_width == 0
    if found.interval == "none" or is_constant_count:
        return mean
    below, above = metric.text(found.mean - found.low), metric.text(found.high - found.mean)
    # Intervals of shares near 0 or 1 reach further to the middle.
    if metric.share and below != above:
        return f"{mean} [{metric.text(found.low)}, {metric.text(found.high)}]"
    unit = " s.e." if found.interval == "standard_error" else ""
    return f"{mean} ± {_half_width(metric, found.half_width)}{unit}"


def _half_width(metric: Metric, half: float) -> str:
    """Print a small interval, which is not an absent one, as a bound instead of as zero."""
    text = metric.text(half)
    is_rounded_away = half > 0 and float(text) == 0
    return f"<{10**-metric.digits:.{metric.digits}f}" if is_rounded_away else text


def _record(group: Group, metric: Metric, kind: Interval) -> Record | None:
    found = group.estimate(metric.name, kind)
    if found is None:
        return None
    used = group.values(metric.name)
    origins = [origin(row, [metric.name]) for row in group.rows if seed_of(row) in used]
    bar = bar_of(found, metric.factor)
    return {
        "series": group.label,
        "mark": "mean" if found.n > 1 else "single",
        **coordinate("y", axis(metric.name), found.mean * metric.factor, bar, origins),
        "n": found.n,
        "reading": "run",
        "sources": ids(origins),
    }
