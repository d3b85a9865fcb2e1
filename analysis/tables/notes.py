"""Notes of a result table: intervals, protocols, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from analysis.statistics.estimates import INTERVALS, Interval
from analysis.statistics.groups import UNRECORDED, Group, ways
from gigatok.names import METRICS, PARAM_SEED, PARAMETERS, Metric

MOST_NAMED = 3
"""Trials that are named where many lack the same."""
MARKS = "abcdefghijklmnopqrstuvwxyz"


def interval_notes(found: Sequence[Group], shown: Sequence[Metric], kind: Interval) -> list[str]:
    """Say what the intervals are over, and where there are none."""
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


def protocol_marks(found: Iterable[Group], metric: str) -> dict[str, str]:
    """Map protocol to mark: empty marks where all values were measured alike, else a, b, c."""
    protocols = ways(found, metric)
    if len(protocols) < 2:
        return dict.fromkeys(protocols, "")
    # In the order of the table, so that the first row has mark a.
    return dict(zip(protocols, MARKS, strict=False))


def protocol_notes(
    found: Sequence[Group], metrics: Iterable[str], *, brief: bool = False
) -> list[str]:
    """Say how each metric was measured; metrics whose notes would be equal share a line.

    A metric with several protocols has a line of its own that says which mark means which.

    Args:
        found: the settings.
        metrics: names of those shown.
        brief: only network and images, unless a metric was measured in several ways.
    """
    alike: dict[str, list[str]] = {}
    several, cut = [], set()
    for metric in map(METRICS.__getitem__, metrics):
        marks = protocol_marks(found, metric.name)
        if len(marks) > 1:
            several.append(_several(metric, marks))
        # A count of parameters is exact: it has no protocol to note.
        elif marks and metric.unit != PARAMETERS:
            (protocol,) = marks
            text = _start(protocol) if brief else protocol
            cut |= {text} if text != protocol else set()
            alike.setdefault(text or UNRECORDED, []).append(metric.label)
    lines = [
        f"{', '.join(labels)}: {text} …"
        if text in cut
        else f"{', '.join(labels)}: {text.rstrip('.')}."
        for text, labels in alike.items()
    ]
    return [*several, *lines, *(["… --protocols shows the rest of a protocol."] * bool(cut))]


def _several(metric: Metric, marks: Mapping[str, str]) -> str:
    listing = "; ".join(f"[{mark}] {text or UNRECORDED}" for text, mark in marks.items())
    return (
        f"{metric.label} was measured in {len(marks)} ways, compare only equal marks: {listing}."
    )


def _start(protocol: str) -> str:
    """Cut a protocol behind the images that it names, or behind its first phrase."""
    phrases = protocol.split(", ")
    named = [place for place, phrase in enumerate(phrases) if "images" in phrase]
    return ", ".join(phrases[: (named[0] if named else 0) + 1])


def _sentence(text: str) -> str:
    return text.rstrip(".") + "."


def head_notes(found: Sequence[Group], shown: Sequence[str]) -> list[str]:
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


def absence_notes(runs: pl.DataFrame, wanted: Sequence[str], have: set[str]) -> list[str]:
    """Name the metrics that no trial has, and what the other trials lack."""
    # Stages that are off by default are not missed, or every table would name them.
    missed = [METRICS[name] for name in wanted if name not in have]
    nowhere = [metric.label for metric in missed if metric.column == "expected"]
    notes = [f"Measured in no trial: {', '.join(nowhere)}."] if nowhere else []
    return [*notes, *incomplete(runs, [name for name in wanted if name in have])]


def incomplete(runs: pl.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say of trials that are not complete, or lack a number of some metrics, what is wrong."""
    alike: dict[str, list[str]] = {}
    for row in runs.iter_rows(named=True):
        absent = [n for n in metrics if row[n] is None]
        strange = [n for n in metrics if row[n] is not None and not math.isfinite(row[n])]
        problems = [f"no {', '.join(METRICS[n].label for n in absent)}"] if absent else []
        problems += [f"{METRICS[n].label} is {not_finite(row[n])}" for n in strange]
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


def not_finite(value: float) -> str:
    """Print a NaN or an infinite number."""
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
