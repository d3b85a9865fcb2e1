"""Tables of what a study shows: every finding of exploration, and Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.claims.exploration import Exploration, Finding
from analysis.claims.interactions import Interaction
from analysis.claims.trends import Trend, title_of
from analysis.statistics.estimates import INTERVALS, PairedDifference, paired_test
from analysis.statistics.pareto import ParetoPoint, pareto
from analysis.tables.columns import ABSENT, number
from analysis.tables.results import ResultTable, sweep_and_scale
from gigatok.names import METRICS, Metric, quantity

FINDINGS_NOTE = (
    "Comparisons and interactions are taken seed by seed, n seeds; an interaction is the effect "
    "of the first step behind the second, less that before it. Trends are lines through the means "
    "of n settings, over the quantity's logarithm: their effect is per doubling, or per 1 where "
    "some setting has none of it. Effect size: mean over standard deviation, Hedges-corrected. "
    "Sign flips: exact two-sided p, and the least that so few seeds can show. p: two-sided t "
    "test. q: p corrected for the number of tests (Benjamini and Hochberg 1995); of rows with q "
    "up to 0.05, 5 % are expected to be chance."
)


def findings_table(runs: pl.DataFrame, found: Exploration) -> ResultTable:
    """Make a row for every comparison, interaction and trend that was looked at."""
    words = ("finding", "metric", "change")
    numbers = ("n", "effect", "95 % interval", "effect size", "sign flips", "p", "q")
    rows = tuple(row for one in found.findings if (row := _row(one)) is not None)
    title = f"{sweep_and_scale(runs)}: exploration"
    title += f" of {found.shared}" if found.shared else ""
    numeric = (*(False for _ in words), *(True for _ in numbers))
    notes = tuple(filter(None, (FINDINGS_NOTE, found.usual)))
    return ResultTable(title, (*words, *numbers), rows, numeric, notes)


def pareto_table(runs: pl.DataFrame, over: Sequence[str]) -> ResultTable:
    """Make a row for every setting, those on the front first.

    Raises:
        RequestError: see `pareto`.
    """
    points = pareto(runs, over)
    ordered = sorted(points, key=lambda point: not point.on_front)
    names = [quantity(name) for name in over]
    paid = [one.label for one in names if one.better is None]
    kinds = {e.interval for point in points for e in point.estimates} - {"none"}
    notes = [
        "A setting is on the front if no other is as good in all columns and better in one, by "
        "the means over seeds: one whose interval reaches the front may belong to it.",
        *([f"Less is better of {', '.join(paid)}."] if paid else []),
        *(f"±: {INTERVALS[kind]}." for kind in sorted(kinds)),
    ]
    return ResultTable(
        f"{sweep_and_scale(runs)}: Pareto front",
        ("setting", "on the front", *(one.heading for one in names)),
        tuple(_point(point, names) for point in ordered),
        (False, False, *(True for _ in names)),
        tuple(notes),
    )


def _point(point: ParetoPoint, names: Sequence[Metric]) -> tuple[str, ...]:
    cells = (
        # Sizes span many decades, and have no spread over seeds.
        number(one, e) if one.name in METRICS else f"{e.mean:.4g}"
        for one, e in zip(names, point.estimates, strict=True)
    )
    return (point.group.label, "yes" if point.on_front else "", *cells)


def _row(one: Finding) -> tuple[str, ...] | None:
    score = METRICS[one.metric]
    tested = ("—" if one.p is None else f"{one.p:.2g}", "—" if one.q is None else f"{one.q:.2g}")
    if isinstance(one, Trend):
        per = "per doubling" if one.per_doubling else "per 1"
        ends = _ends(score, one.low, one.high)
        change = f"{title_of(one.over)}, {per}"
        slope = score.signed(one.slope, 1)
        return (
            "trend",
            score.title,
            change,
            str(one.settings),
            slope,
            ends,
            ABSENT,
            ABSENT,
            *tested,
        )
    if isinstance(one, Interaction):
        change = f"{one.first} × {one.second}"
        return ("interaction", score.title, change, *_paired(score, one.difference), *tested)
    if one.difference is None:
        return None
    return ("comparison", score.title, one.change, *_paired(score, one.difference), *tested)


def _paired(score: Metric, difference: PairedDifference) -> tuple[str, ...]:
    test = paired_test(difference)
    e = test.estimate
    # Half a range of two seeds is no confidence interval and must not stand in its column.
    ends = _ends(score, e.low, e.high) if e.interval == "student_t" else ABSENT
    effect = ABSENT if test.effect is None else f"{test.effect:+.2f}"
    flips = f"{test.p:.3f} (≥ {test.smallest_p:.3f})"
    # One digit more than a score has: differences are smaller than scores.
    return (str(e.n), score.signed(e.mean, 1), ends, effect, flips)


def _ends(score: Metric, low: float, high: float) -> str:
    return f"[{score.signed(low, 1)}, {score.signed(high, 1)}]"
