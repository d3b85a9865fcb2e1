"""The result table of a sweep: a row per setting, seeds merged, footnotes that hide nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.statistics.estimates import INTERVALS, Estimate, Interval
from analysis.statistics.groups import Group, choose_interval, groups, short, show
from analysis.store.runs import measured
from gigatok.names import METRICS, OPTIONAL_COLUMNS, PARAM_SEED, RESULT_COLUMNS, Metric

ABSENT = "—"
MARKS = "abcdefghijklmnopqrstuvwxyz"
_COMPLETE = "COMPLETE"
_UNRECORDED = "protocol not recorded"


@dataclass(frozen=True)
class ResultTable:
    """A finished table.

    Attributes:
        title: the sweep, its scale and its question.
        head: column heads.
        rows: cell texts, one tuple per setting.
        numeric: whether each column holds numbers, and so is aligned to the right.
        notes: what every reader of the table must know, protocols included.
        values: the numbers behind the cells: per metric mean, `_low`, `_high`, `_n`, `_interval`
            and `_protocol`.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    notes: tuple[str, ...]
    values: pl.DataFrame


def result_table(runs: pl.DataFrame, columns: Sequence[str] = RESULT_COLUMNS) -> ResultTable:
    """Make the result table of what `load_runs` returned.

    Args:
        runs: one row per trial.
        columns: metrics wanted; one that no trial has is dropped and named in the notes.
    """
    found = groups(runs)
    kind = choose_interval(found)
    have = set(measured(runs))
    shown = [METRICS[name] for name in columns if name in have]
    marks = {metric.name: protocol_marks(found, metric.name) for metric in shown}
    identity = list(found[0].identity)
    rows = tuple(
        (
            *(show(group.identity[column]) for column in identity),
            _seeds(group),
            *(_cell(group, metric, kind, marks[metric.name]) for metric in shown),
        )
        for group in found
    )
    return ResultTable(
        title=_title(runs),
        head=(*(short(c) for c in identity), "seeds", *(_head(metric) for metric in shown)),
        rows=rows,
        numeric=(*(_is_number(runs, c) for c in identity), True, *(True for _ in shown)),
        notes=(
            *_interval_notes(found, shown, kind),
            *protocol_notes(found, marks),
            *_absence_notes(runs, columns, have),
        ),
        values=_values(found, shown, kind),
    )


def sweep_and_scale(runs: pl.DataFrame) -> str:
    """Such as `decoder_scaling at scale micro`."""
    scales = ", ".join(dict.fromkeys(scale for scale in runs["scale"] if scale))
    return f"{runs['sweep'][0]} at scale {scales}" if scales else str(runs["sweep"][0])


def _title(runs: pl.DataFrame) -> str:
    question = runs["question"][0]
    return f"{sweep_and_scale(runs)}: {question}" if question else sweep_and_scale(runs)


def protocol_marks(found: Iterable[Group], metric: str) -> dict[str, str]:
    """Protocol to mark: empty marks where all values were measured alike, else a, b, c."""
    protocols = list(dict.fromkeys(p for group in found for p in group.protocols(metric)))
    if len(protocols) < 2:
        return dict.fromkeys(protocols, "")
    return dict(zip(protocols, MARKS, strict=False))


def protocol_notes(found: Sequence[Group], metrics: Iterable[str]) -> list[str]:
    """How each metric was measured; metrics measured alike share a line.

    A metric with several protocols has a line of its own that says which mark means which.
    """
    alike: dict[str, list[str]] = {}
    several = []
    for metric in map(METRICS.__getitem__, metrics):
        marks = protocol_marks(found, metric.name)
        if len(marks) > 1:
            listing = "; ".join(f"[{mark}] {text or _UNRECORDED}" for text, mark in marks.items())
            several.append(
                f"{metric.label} was measured in {len(marks)} ways, "
                f"compare only equal marks: {listing}."
            )
        elif marks and metric.unit != "parameters":
            (protocol,) = marks
            alike.setdefault(protocol or _UNRECORDED, []).append(metric.label)
    lines = [_sentence(f"{', '.join(labels)}: {protocol}") for protocol, labels in alike.items()]
    return [*several, *lines]


def format_value(metric: Metric, value: float) -> str:
    """A number as the table prints it: parameters in millions, the rest to `Metric.digits`."""
    if metric.unit != "parameters":
        return f"{value:.{metric.digits}f}"
    millions = value / 1e6
    digits = 2 if millions < 10 else 1 if millions < 100 else 0
    return f"{millions:.{digits}f} M"


def _head(metric: Metric) -> str:
    arrow = {"lower": " ↓", "higher": " ↑", None: ""}[metric.better]
    scale = " (x1000)" if metric.unit == "x1000" else ""
    return f"{metric.label}{scale}{arrow}"


def _is_number(runs: pl.DataFrame, column: str) -> bool:
    return runs[column].dtype.is_numeric()


def _seeds(group: Group) -> str:
    complete = sum(row["state"] == _COMPLETE for row in group.rows)
    total = len(group.rows)
    return str(total) if complete == total else f"{complete} of {total}"


def _cell(group: Group, metric: Metric, kind: Interval, marks: Mapping[str, str]) -> str:
    protocols = group.protocols(metric.name)
    if len(protocols) > 1:
        return "mixed [" + ",".join(marks[p] for p in protocols) + "]"
    found = group.estimate(metric.name, kind)
    if found is None:
        logged = [row[metric.name] for row in group.rows if row[metric.name] is not None]
        return _not_finite(logged[0]) if logged else ABSENT
    mark = marks[protocols[0]]
    short_of = f" (n={found.n})" if found.n < len(group.rows) else ""
    return _number(metric, found) + short_of + (f" [{mark}]" if mark else "")


def _number(metric: Metric, found: Estimate) -> str:
    mean = format_value(metric, found.mean)
    is_constant_count = metric.unit == "parameters" and found.half_width == 0
    if found.interval == "none" or is_constant_count:
        return mean
    unit = " s.e." if found.interval == "standard_error" else ""
    return f"{mean} ± {_half_width(metric, found.half_width)}{unit}"


def _half_width(metric: Metric, half: float) -> str:
    """A small interval is not an absent one: what would round to zero is printed as a bound."""
    text = format_value(metric, half)
    is_rounded_away = half > 0 and float(text.removesuffix(" M")) == 0
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
    missed = [name for name in columns if name not in have | OPTIONAL_COLUMNS]
    nowhere = [METRICS[name].label for name in missed]
    notes = [f"Measured in no trial: {', '.join(nowhere)}."] if nowhere else []
    return [*notes, *incomplete(runs, [name for name in columns if name in have])]


def incomplete(runs: pl.DataFrame, metrics: Sequence[str]) -> list[str]:
    """A sentence for each trial that is not complete, or lacks a number of some metrics."""
    notes = []
    for row in runs.iter_rows(named=True):
        absent = [n for n in metrics if row[n] is None]
        strange = [n for n in metrics if row[n] is not None and not math.isfinite(row[n])]
        problems = [f"no {', '.join(METRICS[n].label for n in absent)}"] if absent else []
        problems += [f"{METRICS[n].label} is {_not_finite(row[n])}" for n in strange]
        if problems or row["state"] != _COMPLETE:
            notes.append(_sentence(f"{_trial(row)}: {'; '.join([_state(row), *problems])}"))
    return notes


def _trial(row: Mapping[str, Any]) -> str:
    name = row["trial"] or row["run_id"]
    return name if "seed=" in name else f"{name} (seed {row[PARAM_SEED]})"


def _state(row: Mapping[str, Any]) -> str:
    state = row["state"] or "state unknown"
    return f"{state} ({row['error'].rstrip('.')})" if row["error"] else str(state)


def _values(found: Sequence[Group], shown: Sequence[Metric], kind: Interval) -> pl.DataFrame:
    rows = []
    for group in found:
        row: dict[str, Any] = {**group.identity, "trials": len(group.rows)}
        for metric in shown:
            row |= _numbers(group, metric.name, kind)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _numbers(group: Group, metric: str, kind: Interval) -> dict[str, Any]:
    found = group.estimate(metric, kind)
    has_interval = found is not None and found.interval != "none"
    return {
        metric: found and found.mean,
        f"{metric}_low": found.low if found and has_interval else None,
        f"{metric}_high": found.high if found and has_interval else None,
        f"{metric}_n": found.n if found else len(group.values(metric)),
        f"{metric}_interval": found and found.interval,
        f"{metric}_protocol": " | ".join(group.protocols(metric)) or None,
    }
