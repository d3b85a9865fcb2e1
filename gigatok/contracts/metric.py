"""Contract of a metric: what tables, figures, MLflow and the page rely on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from gigatok.contracts.base import Check, broken
from gigatok.names import METRICS, QUANTITIES, Metric

_NAME = re.compile(r"[a-z][a-z0-9_]*")
LONGEST = 60
"""Characters of a heading at most: result tables have a column for each metric."""


def broken_promises(metric: Metric) -> list[str]:
    """List what is wrong with the description of a metric; empty: it keeps the contract."""
    return broken(CHECKS, metric, f"metric {metric.name}")


def name(metric: Metric) -> Iterator[str]:
    """Check that the name can be a column, a key of MLflow and a word of `--set`."""
    if not _NAME.fullmatch(metric.name):
        yield f"its name is {metric.name!r}; use small letters, digits and _, such as rfid"
    others = {known for known in QUANTITIES if known not in METRICS}
    if metric.name in others:
        yield "its name is that of an axis of figures; choose another"


def heading(metric: Metric) -> Iterator[str]:
    """Check that words and unit make a heading that no other metric has."""
    if not metric.label.strip():
        yield "its label is empty; say in a word or two what it measures"
    if len(metric.heading) > LONGEST:
        yield f"its heading has {len(metric.heading)} characters; {LONGEST} are allowed"
    same = [m.name for m in METRICS.values() if m.heading == metric.heading and m != metric]
    if same:
        yield f"its heading {metric.heading!r} is also that of {', '.join(same)}"


def printing(metric: Metric) -> Iterator[str]:
    """Check direction, digits, and the unit of what is printed."""
    if metric.better not in ("lower", "higher", None):
        yield f"better is {metric.better!r}; allowed are 'lower', 'higher' and None"
    if metric.column not in ("expected", "measured", None):
        yield f"column is {metric.column!r}; allowed are 'expected', 'measured' and None"
    if not 0 <= metric.digits <= 12:
        yield f"digits is {metric.digits}; allowed are 0 to 12"
    if not (math.isfinite(metric.factor) and metric.factor > 0):
        yield f"factor is {metric.factor}; it must be a positive number"
    if (metric.factor != 1) != bool(metric.printed_unit):
        yield "factor and printed_unit belong together: the one makes the other"


def standard_error(metric: Metric) -> Iterator[str]:
    """Check that the standard error is a metric in the same unit."""
    if metric.standard_error is None:
        return
    error = METRICS.get(metric.standard_error)
    if error is None:
        yield f"its standard error {metric.standard_error} is not registered"
    elif error.unit != metric.unit:
        yield f"its standard error is in {error.unit!r}, and itself in {metric.unit!r}"


CHECKS: tuple[Check, ...] = (name, heading, printing, standard_error)
