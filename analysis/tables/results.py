"""The result table of a sweep: a row per setting, seeds merged, footnotes that hide nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from analysis.charts.grammar import Origin, axis, bar_of
from analysis.charts.records import Record, coordinate, ids
from analysis.statistics.axes import place
from analysis.statistics.estimates import INTERVALS, Interval, SeedEstimate
from analysis.statistics.groups import (
    UNRECORDED,
    Group,
    choose_interval,
    groups,
    seed_of,
    short,
    show,
    ways,
)
from analysis.store.requests import RequestError
from analysis.store.runs import derived_of, measured, origin
from gigatok.names import (
    METRICS,
    PARAM_SEED,
    PARAMETERS,
    PREFIX_DERIVED,
    SIZES,
    STEADIER,
    Metric,
    quantity,
    result_columns,
)

ABSENT = "—"
BITS = "bits_per_image"
MOST_NAMED = 3
"""Trials that are named where many lack the same."""
MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class ResultTable:
    """A finished table.

    Attributes:
        title: the sweep, its scale and its question.
        head: column heads.
        rows: cell texts, one tuple per setting.
        numeric: whether a column holds numbers and so is aligned to the right.
        notes: what every reader of the table must know, protocols included.
        records: the numbers behind the cells, in the schema of every figure and table; none of a
            table of words.
        origins: where the numbers are from.
        names: what users call the columns, as `--columns` takes them; none of a table of words.
        best: row and column of each best value.
        drops: columns that go where a line is too short for all, in this order.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    notes: tuple[str, ...]
    records: tuple[Record, ...] = ()
    origins: tuple[Origin, ...] = ()
    names: tuple[str, ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()
    drops: tuple[int, ...] = ()


def result_table(
    runs: pl.DataFrame, columns: Sequence[str] | None = None, first: Sequence[str] = ()
) -> ResultTable:
    """Make the result table of what `load_runs` returned.

    Args:
        runs: one row per trial.
        columns: metrics wanted; one that no trial has is dropped, and named in the notes where it
            is expected. None: those of every result table.
        first: metrics that stay longest where a line is too short for all.

    Raises:
        RequestError: a column is no metric.
    """
    wanted = result_columns() if columns is None else _known(columns)
    found = groups(runs)
    kind = choose_interval(found)
    have = set(measured(runs))
    shown = [METRICS[name] for name in wanted if name in have]
    shown_names = [metric.name for metric in shown]
    marks = {metric.name: protocol_marks(found, metric.name) for metric in shown}
    identity = list(found[0].identity)
    following = _following(runs)
    leading = len(identity) + len(following) + 1
    # Settings, what follows from them, seeds, metrics; `head` and `numeric` below likewise.
    rows = tuple(
        (
            *(show(group.identity[column]) for column in identity),
            *(_constant(group, column) for column in following),
            _seeds(group),
            *(_cell(group, metric, kind, marks[metric.name]) for metric in shown),
        )
        for group in found
    )
    return ResultTable(
        title=": ".join(filter(None, (sweep_and_scale(runs), runs["question"][0]))),
        head=(
            *(short(c) for c in identity),
            *map(_following_heading, following),
            "seeds",
            *(metric.heading for metric in shown),
        ),
        rows=rows,
        numeric=(
            *(runs[c].dtype.is_numeric() for c in (*identity, *following)),
            True,
            *(True for _ in shown),
        ),
        notes=(
            *_interval_notes(found, shown, kind),
            *protocol_notes(found, marks),
            *_head_notes(found, [metric.name for metric in shown]),
            *_best_notes(found, shown),
            *_absence_notes(runs, wanted, have),
        ),
        # From the same estimates as the cells, but not rounded.
        records=tuple(
            r
            for g in found
            for r in (
                *(_constant_record(g, c) for c in following),
                *(_record(g, m, kind) for m in shown),
            )
            if r
        ),
        origins=tuple(origin(row, shown_names) for group in found for row in group.rows),
        names=(*identity, *following, "seeds", *shown_names),
        best=frozenset(
            (row, leading + at)
            for at, metric in enumerate(shown)
            for row in best_settings(found, metric)
        ),
        drops=_drops(found, shown_names, leading, first),
    )


def _known(columns: Sequence[str]) -> Sequence[str]:
    for name in columns:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RequestError(f"no metric {name!r} to show{hint}; there are {', '.join(METRICS)}")
    return columns


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


def _best_notes(found: Sequence[Group], shown: Sequence[Metric]) -> list[str]:
    if not any(best_settings(found, metric) for metric in shown):
        return []
    return ["Marked: the best mean of a column, which need not be better beyond chance."]


def _drops(
    found: Sequence[Group], shown: Sequence[str], leading: int, first: Sequence[str]
) -> tuple[int, ...]:
    """Order the columns that may go where a line is short; what tells settings apart stays."""
    identity = list(found[0].identity)
    same = [
        at
        for at, column in enumerate(identity)
        if len(identity) > 1 and len({group.identity[column] for group in found}) == 1
    ]

    def urgency(at: int) -> tuple[bool, bool, bool, bool, int]:
        # What is neither good nor bad, such as a size, tells least, and what was measured in
        # several ways compares few rows. FID of few images is mostly bias: where its KID was
        # measured, that stays longer.
        metric = METRICS[shown[at]]
        biased = STEADIER.get(metric.name) in shown
        aimless = metric.better is None or len(ways(found, metric.name)) > 1
        return metric.name not in first, aimless, biased, not metric.headline, at

    metrics = sorted(range(len(shown)), key=urgency, reverse=True)
    return (*same, *(leading + at for at in metrics), *range(len(identity), leading - 1))


def _following(runs: pl.DataFrame) -> list[str]:
    """List what follows from the settings and is shown: what the sweep derives, bits per image."""
    derived = derived_of(runs)
    bits = runs[BITS]
    # Shown once, under the sweep's own name for it.
    named = any(
        runs[c].dtype.is_numeric() and runs[c].cast(pl.Float64).equals(bits, check_names=False)
        for c in derived
    )
    return [*derived, *([BITS] if bits.is_not_null().any() and not named else [])]


def _following_heading(column: str) -> str:
    return quantity(column).heading if column in SIZES else column.removeprefix(PREFIX_DERIVED)


def _constant(group: Group, column: str) -> str:
    """Print what all seeds share, or all that they have where it reads the seed."""
    found = dict.fromkeys(row[column] for row in group.rows if row[column] is not None)
    return ", ".join(map(show, found)) or ABSENT


def _constant_record(group: Group, column: str) -> Record | None:
    value = place(group, column)
    if value is None:
        return None
    origins = [origin(row, []) for row in group.rows]
    return {
        "series": group.label,
        "mark": "mean" if len(group.rows) > 1 else "single",
        **coordinate("y", axis(column, _following_heading(column)), value, None, origins),
        "n": len(group.rows),
        "reading": "run",
        "sources": ids(origins),
    }


def _head_notes(found: Sequence[Group], shown: Sequence[str]) -> list[str]:
    """Say how much larger a tokenizer is while it is trained, where it has a head for that."""
    if "params_tokenizer" not in shown:
        return []
    shares = [
        head[seed] / total[seed]
        for group in found
        for head, total in [(group.values("params_head"), group.values("params_tokenizer"))]
        for seed in head.keys() & total.keys()
        if head[seed] > 0
    ]
    if not shares:
        return []
    return [
        f"{METRICS['params_tokenizer'].label}: without the head of semantic regularisation, which "
        f"only training uses and which adds up to {max(shares):.0%}."
    ]


def sweep_and_scale(runs: pl.DataFrame) -> str:
    """Name a sweep with its scale, such as `decoder_scaling at scale micro`."""
    scales = ", ".join(dict.fromkeys(scale for scale in runs["scale"] if scale))
    return f"{runs['sweep'][0]} at scale {scales}" if scales else str(runs["sweep"][0])


def protocol_marks(found: Iterable[Group], metric: str) -> dict[str, str]:
    """Map protocol to mark: empty marks where all values were measured alike, else a, b, c."""
    protocols = ways(found, metric)
    if len(protocols) < 2:
        return dict.fromkeys(protocols, "")
    # In the order of the table, so that the first row has mark a.
    return dict(zip(protocols, MARKS, strict=False))


def protocol_notes(found: Sequence[Group], metrics: Iterable[str]) -> list[str]:
    """Say how each metric was measured; metrics measured alike share a line.

    A metric with several protocols has a line of its own that says which mark means which.
    """
    alike: dict[str, list[str]] = {}
    # Metrics of one protocol share a line; the others need to say which mark means which.
    several = []
    for metric in map(METRICS.__getitem__, metrics):
        marks = protocol_marks(found, metric.name)
        if len(marks) > 1:
            listing = "; ".join(f"[{mark}] {text or UNRECORDED}" for text, mark in marks.items())
            several.append(
                f"{metric.label} was measured in {len(marks)} ways, "
                f"compare only equal marks: {listing}."
            )
        # A count of parameters is exact: it has no protocol to note.
        elif marks and metric.unit != PARAMETERS:
            (protocol,) = marks
            alike.setdefault(protocol or UNRECORDED, []).append(metric.label)
    lines = [_sentence(f"{', '.join(labels)}: {protocol}") for protocol, labels in alike.items()]
    return [*several, *lines]


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
        return _not_finite(logged[0]) if logged else ABSENT
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


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"


def _sentence(text: str) -> str:
    return text.rstrip(".") + "."


def _interval_notes(found: Sequence[Group], shown: Sequence[Metric], kind: Interval) -> list[str]:
    estimates = [group.estimate(metric.name, kind) for group in found for metric in shown]
    kinds = {e.interval for e in estimates if e is not None}
    over_seeds: tuple[Interval, ...] = ("student_t", "half_range")
    used = [INTERVALS[k] for k in over_seeds if k in kinds]
    notes = [f"±: {'; with two seeds '.join(used)}."] if used else []
    if "standard_error" in kinds:
        notes.append("± s.e.: one seed; only the metric's own sampling error, not that of seeds.")
    if "none" in kinds:
        notes.append("No ±: one seed, so nothing is known about the spread.")
    return notes


def _absence_notes(runs: pl.DataFrame, columns: Sequence[str], have: set[str]) -> list[str]:
    # Stages that are off by default are not missed, or every table would name them.
    missed = [METRICS[name] for name in columns if name not in have]
    nowhere = [metric.label for metric in missed if metric.column == "expected"]
    notes = [f"Measured in no trial: {', '.join(nowhere)}."] if nowhere else []
    return [*notes, *incomplete(runs, [name for name in columns if name in have])]


def incomplete(runs: pl.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say of trials that are not complete, or lack a number of some metrics, what is wrong."""
    alike: dict[str, list[str]] = {}
    for row in runs.iter_rows(named=True):
        absent = [n for n in metrics if row[n] is None]
        strange = [n for n in metrics if row[n] is not None and not math.isfinite(row[n])]
        problems = [f"no {', '.join(METRICS[n].label for n in absent)}"] if absent else []
        problems += [f"{METRICS[n].label} is {_not_finite(row[n])}" for n in strange]
        if problems or row["state"] != "COMPLETE":
            state = row["state"] or "state unknown"
            state += f" ({row['error'].rstrip('.')})" if row["error"] else ""
            name = row["trial"] or row["run_id"]
            name += "" if "seed=" in name else f" (seed {row[PARAM_SEED]})"
            alike.setdefault("; ".join([state, *problems]), []).append(name)
    return [_sentence(f"{_named(names)}: {text}") for text, names in alike.items()]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


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
