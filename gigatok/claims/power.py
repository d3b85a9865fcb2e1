"""Power of a claim's test: how likely seeds decide it, and how many more would."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, nctdtr, ndtr, stdtrit

from gigatok.claims.claim import Claim, Looks
from gigatok.claims.looks import means_at_looks, threshold
from gigatok.claims.verdicts import LEVEL

MOST_SEEDS = 1000
"""Beyond, more seeds are no advice."""
_PATHS = 20_000
_VARIANCES = 2_000
"""Steps of the integral over the variance that seeds may show; its error is below .1 %."""


@dataclass(frozen=True)
class Aim:
    """Range that an effect must be shown to lie in, by a one-sided test at each finite end.

    Attributes:
        low: lower end.
        high: upper end.
        chances: ranges that give this verdict; each has its part of the level.
    """

    low: float = 0.0
    high: float = math.inf
    chances: int = 1


POSITIVE = Aim()


def aim_of(claim: Claim, effect: float) -> Aim:
    """Choose the range that decides a claim if its effect, in its own direction, is this one."""
    if claim.kind == "equivalence":
        if abs(effect) <= claim.margin:
            return Aim(-claim.margin, claim.margin)
        outside = (claim.margin, math.inf) if effect > 0 else (-math.inf, -claim.margin)
        return Aim(*outside, chances=2)
    if effect >= claim.margin:
        return Aim(claim.margin)
    return Aim(-math.inf, claim.margin)


def power(
    effect: float, spread: float, seeds: int, level: float = LEVEL, aim: Aim = POSITIVE
) -> float:
    """Compute how likely a two-sided t test of paired differences decides a claim.

    Args:
        effect: true mean difference.
        spread: standard deviation of the differences over seeds; positive.
        seeds: number of seeds, at least 2.
        level: of the test, after corrections.
        aim: where the effect must be shown to lie; else above 0.
    """
    freedom = seeds - 1
    # The mean is normal given the variance, of which every quantile counts alike: the integral
    # is Owen's (Biometrika 52, 1965), and at one end the noncentral t distribution.
    shares = (np.arange(_VARIANCES) + 0.5) / _VARIANCES
    deviations = np.sqrt(2 * gammaincinv(freedom / 2, shares) / freedom)
    bound = -stdtrit(freedom, level / 2 / aim.chances) * deviations
    scale = math.sqrt(seeds) / spread
    below = ndtr((aim.high - effect) * scale - bound)
    above = ndtr((aim.low - effect) * scale + bound)
    # Negative where the variance leaves no room between both ends.
    return float(np.maximum(below - above, 0).mean())


def found_by_t(shift: float, freedom: int, level: float = LEVEL) -> float:
    """Compute how likely a two-sided t test finds an effect of so many standard errors."""
    bound = float(-stdtrit(freedom, level / 2))
    # Noncentral t; the other tail, a verdict the wrong way, is no success.
    return 1 - float(nctdtr(freedom, shift, bound))


@dataclass(frozen=True)
class Course:
    """Expected course of a claim to whose settings seeds are added until it is decided.

    Attributes:
        looks: numbers of seeds.
        undecided: probability that it is still undecided after each of them.
    """

    looks: Looks
    undecided: tuple[float, ...]

    @property
    def seeds(self) -> float:
        """Expected seeds of each of its settings."""
        return self.looks.start + sum(self.undecided[:-1])

    def reaches(self, seeds: int) -> float:
        """Return the probability that so many seeds are run."""
        # Not before the first look, and nothing beyond the last.
        if seeds <= self.looks.start:
            return 1.0
        return self.undecided[seeds - self.looks.start - 1] if seeds <= self.looks.at_most else 0.0


def foresee(
    effect: float, spread: float, looks: Looks, level: float = LEVEL, aim: Aim = POSITIVE
) -> Course:
    """Simulate how likely each look decides a claim, seeds being added until one does.

    Args:
        effect: true mean difference.
        spread: standard deviation of the differences over seeds; positive.
        looks: numbers of seeds.
        level: over all looks, after the correction for other claims.
        aim: where the effect must be shown to lie; else above 0.
    """
    rng = np.random.default_rng(20250411)
    draws = effect + spread * rng.standard_normal((_PATHS, looks.at_most))
    means, errors, freedom = means_at_looks(draws, looks)
    reach = -stdtrit(freedom, threshold(level, looks) / 2 / aim.chances) * errors
    found = (means - reach > aim.low) & (means + reach < aim.high)
    # A verdict stands from the look that gave it.
    decided = np.logical_or.accumulate(found, axis=1).mean(0)
    return Course(looks, tuple((1 - decided).tolist()))


def more_seeds(
    effect: float,
    spread: float,
    seeds: int,
    level: float = LEVEL,
    wanted: float = 0.8,
    aim: Aim = POSITIVE,
) -> int | None:
    """Count the seeds that must be added to decide with some probability; None: too many."""
    # Power grows with seeds, so the first number that suffices is found by halving.
    low, high = max(seeds, 1), MOST_SEEDS
    if power(effect, spread, high, level, aim) < wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(effect, spread, middle, level, aim) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high - seeds
