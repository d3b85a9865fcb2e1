"""Responses of results to quantities: axes with numbers, what a sweep derives, and sizes.

A trend is one slope through the means of all settings, with an intercept for each family, whose
settings differ only in what sets the quantity. Sizes repeat, not seeds: seeds of a setting share
its distance from the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.special import stdtrit

from analysis.claims.findings import comparable
from analysis.claims.tested import Tested, direction
from analysis.statistics.axes import families_over, place
from analysis.statistics.groups import Group, short, ways
from analysis.statistics.laws import Floats
from gigatok.claims.evidence import pooled_slope
from gigatok.names import METRICS, PREFIX_DERIVED, SIZES, quantity

FEWEST_PLACES = 3
"""A line through two places leaves nothing that would show chance."""
Order = frozenset[tuple[int | None, ...]]
"""Ranks of the settings by a quantity, ascending and descending; None: it is unknown."""


@dataclass(frozen=True)
class Trend(Tested):
    """Slope of a result over a quantity.

    Attributes:
        metric: key of the metric.
        over: column of the quantity.
        slope: change of the metric per doubling of the quantity, or per 1 of it where some
            setting has none of it.
        low: lower end of the 95 % interval.
        high: upper end.
        per_doubling: which of the two.
        settings: number of means that the line goes through.
        families: number of intercepts.
    """

    metric: str
    over: str
    slope: float
    low: float
    high: float
    per_doubling: bool
    settings: int
    families: int

    @property
    def sentence(self) -> str:
        """Give the answer, complete in itself."""
        score = METRICS[self.metric]
        ends = ", ".join(score.signed(value, 1) for value in (self.low, self.high))
        per = "per doubling" if self.per_doubling else "per 1"
        parts = f"{self.settings} settings"
        parts += f" in {self.families} families" if self.families > 1 else ""
        text = f"{score.label} over {title_of(self.over)}: {score.signed(self.slope, 1)}"
        text += f"{score.difference_unit} {per} [{ends}], {parts}"
        if self.is_shown:
            return f"{text}. {direction(score, self.slope)}: a trend is shown {self.chance}."
        return f"{text}. No trend is shown {self.chance}."


def title_of(column: str) -> str:
    """Name a quantity in a sentence: a size by its label, all else by the end of its key."""
    if column.startswith(PREFIX_DERIVED):
        return column.removeprefix(PREFIX_DERIVED)
    return quantity(column).label if column in SIZES else short(column)


def derived_columns(found: Sequence[Group]) -> list[str]:
    """List the columns that the sweep's `derive` made."""
    return [c for c in (found[0].rows[0] if found else {}) if c.startswith(PREFIX_DERIVED)]


def apart(found: Sequence[Group], columns: Sequence[str]) -> list[str]:
    """Select quantities of which settings have three numbers, of those that grow together one.

    Where one quantity is a power of the other, the first stands for both: bits of a pixel and
    bits of an image give the same trends and laws.
    """
    kept: dict[str, Floats] = {}
    for column in columns:
        places = [place(group, column) for group in found]
        if len(set(places) - {None}) < FEWEST_PLACES:
            continue
        shape = _shape(np.array([np.nan if p is None else p for p in places]))
        if not any(np.allclose(shape, other, equal_nan=True) for other in kept.values()):
            kept[column] = shape
    return list(kept)


def trends(found: Sequence[Group]) -> list[Trend]:
    """Take the trend of every result over every quantity that three settings differ in."""
    # One seed each: the tests of everything else say nothing then, and neither does a line.
    if not any(len(group.rows) > 1 for group in found):
        return []
    axes = found[0].identity if found else ()
    quantities = apart(found, [*axes, *derived_columns(found), *SIZES])
    # Of quantities that order the settings alike, the first: a generator's parameters follow from
    # the codebook, and each trend that is tested costs the others power.
    firsts: dict[Order, str] = {}
    for column in quantities:
        firsts.setdefault(_order(found, column), column)
    metrics = comparable(found)
    tried = (_trend(found, column, metric) for column in firsts.values() for metric in metrics)
    return [trend for trend in tried if trend is not None]


def _trend(found: Sequence[Group], column: str, metric: str) -> Trend | None:
    measured = [group for group in found if group.values(metric)]
    # A line through values of two protocols would follow the protocols.
    if len(ways(measured, metric)) != 1:
        return None
    points = [_points(family, column, metric) for family in families_over(measured, column)]
    families = [(x, y) for x, y in points if len(np.unique(x)) >= FEWEST_PLACES]
    if not families:
        return None
    per_doubling = all((x > 0).all() for x, _ in families)
    fitted = pooled_slope([(np.log2(x) if per_doubling else x, y) for x, y in families])
    if fitted is None:
        return None
    slope = fitted.size
    half = float(-stdtrit(fitted.freedom, 0.025)) * fitted.error
    return Trend(
        metric, column, slope, slope - half, slope + half, per_doubling,
        sum(len(x) for x, _ in families), len(families),
        p=min(1.0, 2 * min(fitted.beyond(0.0))),
    )  # fmt: skip


def _order(found: Sequence[Group], column: str) -> Order:
    """Rank the settings by a quantity, from either end."""
    places = [place(group, column) for group in found]
    known = sorted({p for p in places if p is not None})
    ranks = [None if p is None else known.index(p) for p in places]
    return frozenset({tuple(ranks), tuple(r if r is None else len(known) - 1 - r for r in ranks)})


def _points(family: Sequence[Group], column: str, metric: str) -> tuple[Floats, Floats]:
    """Read the quantity and average the metric of each setting of a family."""
    places = [place(group, column) for group in family]
    means = [fmean(group.values(metric).values()) for group in family]
    return np.array(places, float), np.array(means)


def _shape(places: Floats) -> Floats:
    """Bring powers of one another to the same numbers: logarithms from 0 to 1, falling or not."""
    logs = np.log(places) if (places[~np.isnan(places)] > 0).all() else places
    low, high = np.nanmin(logs), np.nanmax(logs)
    found: Floats = (logs - low) / (high - low)
    return found
