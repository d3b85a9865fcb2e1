"""What every finding of exploration shares: how likely it is chance, beside all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from analysis.statistics.estimates import PairedDifference, estimate
from gigatok.claims.evidence import ROUNDING, paired_effect
from gigatok.claims.verdicts import LEVEL, false_discovery_rates
from gigatok.names import Metric

_MAX_LISTED = 4
"""Differences of single seeds that a sentence lists."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Finding that chance may have made.

    Attributes:
        p: two-sided; None where nothing could be tested.
        q: share of chance among the findings that are as clear as this one or clearer; None
            without p.
        looked: number of findings that were tested together.
    """

    p: float | None = None
    q: float | None = None
    looked: int = 1

    @property
    def is_shown(self) -> bool:
        """Tell whether it is clear enough to be said: 5 % of such findings are chance."""
        return self.q is not None and self.q <= LEVEL

    @property
    def chance(self) -> str:
        """Say how likely it is chance, in brackets."""
        assert self.q is not None, "only what was tested has a q"
        return f"(q = {self.q:.2g} of {self.looked} test{'s' if self.looked != 1 else ''})"


T = TypeVar("T", bound=Tested)


def together(found: Sequence[Tested]) -> dict[int, Tested]:
    """Correct findings for their number; return those that were tested by their place."""
    ps = {i: one.p for i, one in enumerate(found) if one.p is not None}
    rates = false_discovery_rates(list(ps.values()))
    return {i: replace(found[i], q=q, looked=len(ps)) for i, q in zip(ps, rates, strict=True)}


def paired_p(difference: PairedDifference | None) -> float | None:
    """Compute the two-sided p of the paired t test; None with fewer than two seeds."""
    if difference is None or difference.n < 2:
        return None
    values = np.asarray(difference.differences)
    effect = paired_effect(values, ROUNDING * float(np.abs(values).max()))
    return min(1.0, 2 * min(effect.beyond(0.0)))


def changes(score: Metric, difference: PairedDifference) -> str:
    """Print the difference of each seed; of many seeds, their mean and extremes."""
    values = difference.differences
    if difference.n > _MAX_LISTED:
        ends = f"{score.signed(min(values))} to {score.signed(max(values))}"
        mean = f"{score.signed(difference.mean)}{score.difference_unit}"
        return f"{mean} ({ends} on {difference.n} seeds)"
    plural = "seed" if difference.n == 1 else "seeds"
    listing = " and ".join(score.signed(value) for value in values)
    return f"{listing}{score.difference_unit} on {plural} {', '.join(map(str, difference.seeds))}"


def interval(score: Metric, difference: PairedDifference) -> str:
    """Print the 95 % interval of the mean difference; empty below three seeds."""
    found = estimate(difference.differences, "student_t")
    if found.interval != "student_t":
        return ""
    low, high = (score.signed(value, 1) for value in (found.low, found.high))
    return f", mean {score.signed(found.mean, 1)} [{low}, {high}]"


def direction(score: Metric, change: float) -> str:
    """Say which way a score moved, and whether that is better."""
    moved = "Higher" if change > 0 else "Lower"
    if score.better is None:
        return moved
    judged = "better" if (change > 0) == (score.better == "higher") else "worse"
    return f"{moved} ({judged})"


def on_all_seeds(difference: PairedDifference) -> str:
    """Name the seeds where they all move one way or not at all; empty where they disagree."""
    # Differences of 0 have no sign; they neither agree nor disagree.
    if len({d > 0 for d in difference.differences if d}) != 1:
        return ""
    return "both seeds" if difference.n == 2 else f"all {difference.n} seeds"
