"""Power of a claim's test: how likely seeds decide it, and how many more would."""

from __future__ import annotations

import numpy as np
from scipy.special import nctdtr, stdtrit

from gigatok.claims.claim import Looks
from gigatok.claims.looks import p_at_looks, threshold
from gigatok.claims.verdicts import LEVEL

MOST_SEEDS = 1000
"""Beyond, more seeds are no advice."""
_PATHS = 20_000


def power(effect: float, spread: float, seeds: int, level: float = LEVEL) -> float:
    """Compute how likely a two-sided t test of paired differences finds an effect.

    Args:
        effect: true mean difference, beyond the claim's margin.
        spread: standard deviation of the differences over seeds; positive.
        seeds: number of seeds, at least 2.
        level: of the test, after corrections.
    """
    return found_by_t(abs(effect) / spread * float(np.sqrt(seeds)), seeds - 1, level)


def found_by_t(shift: float, freedom: int, level: float = LEVEL) -> float:
    """Compute how likely a two-sided t test finds an effect of so many standard errors."""
    bound = float(-stdtrit(freedom, level / 2))
    # Noncentral t; the other tail, a verdict the wrong way, is no success.
    return 1 - float(nctdtr(freedom, shift, bound))


def power_of_looks(effect: float, spread: float, looks: Looks, level: float = LEVEL) -> float:
    """Compute how likely any look up to the last finds the effect, by simulation.

    Args:
        effect: true mean difference, beyond the claim's margin.
        spread: standard deviation of the differences over seeds; positive.
        looks: numbers of seeds.
        level: over all looks, after the correction for other claims.
    """
    rng = np.random.default_rng(20250411)
    differences = rng.standard_normal((_PATHS, looks.at_most)) + abs(effect) / spread
    smallest = p_at_looks(differences, looks).min(1)
    return float((smallest <= threshold(level, looks)).mean())


def more_seeds(
    effect: float, spread: float, seeds: int, level: float = LEVEL, wanted: float = 0.8
) -> int | None:
    """Count the seeds that must be added to decide with some probability; None: too many."""
    if effect == 0:
        return None
    # Power grows with seeds, so the first number that suffices is found by halving.
    low, high = max(seeds, 1), MOST_SEEDS
    if power(effect, spread, high, level) < wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if power(effect, spread, middle, level) >= wanted else (middle, high)
        )
    return high - seeds
