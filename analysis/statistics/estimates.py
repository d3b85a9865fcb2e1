"""Statistics over seeds as frozen results: estimates, paired tests, rank correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import NormalDist, fmean, stdev
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

Floats = npt.NDArray[np.float64]
Seed = int | str
"""Key that pairs the trials of two settings: see `groups.seed_of`."""

Interval = Literal["none", "half_range", "student_t", "standard_error"]
INTERVALS: dict[Interval, str] = {
    "none": "one seed, no interval",
    "half_range": "half the range over seeds (too few for a confidence interval)",
    "student_t": "95 % confidence interval over seeds (Student t; of shares on the logit scale)",
    "standard_error": "standard error of the metric itself, one seed",
}
"""Kinds of intervals, in words for captions and footnotes."""

MIN_SEEDS_FOR_T = 3
"""With two seeds the t interval is 9 times the range: it would say nothing but 'two seeds'."""


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over `n` seeds and what its interval is; `low == high == mean` where it has none."""

    mean: float
    low: float
    high: float
    n: int
    interval: Interval

    @property
    def half_width(self) -> float:
        """Halve the length of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first on the seeds that both have, in seed order."""

    seeds: tuple[Seed, ...]
    differences: tuple[float, ...]

    @property
    def n(self) -> int:
        """Count the shared seeds."""
        return len(self.seeds)

    @property
    def mean(self) -> float:
        """Average the differences."""
        return fmean(self.differences)

    @property
    def same_sign(self) -> bool:
        """Tell whether every seed moves the same way."""
        return min(self.differences) > 0 or max(self.differences) < 0


def estimate(values: Sequence[float], interval: Interval, *, share: bool = False) -> SeedEstimate:
    """Estimate mean and interval from one value per seed.

    Args:
        values: finite, at least one.
        interval: kind wanted. A single value has none whatever is asked, and fewer than
            `MIN_SEEDS_FOR_T` have half their range: the result says which.
        share: values are fractions of a whole, and so is what their mean may be.
    """
    # A plug-in may call something a share that is none; its values are shown as they are.
    share = share and min(values) >= 0 and max(values) <= 1
    # `fmean` rounds the exact sum once, so the order of the seeds cannot change a printed mean.
    mean = fmean(values)
    # Equal ends mean "no interval": figures draw no bar and tables print no ±.
    if len(values) == 1:
        return SeedEstimate(mean, mean, mean, 1, "none")
    if interval == "student_t" and len(values) >= MIN_SEEDS_FOR_T:
        # Half width of the interval for a mean of n values: t * s / sqrt(n).
        half = student_t_975(len(values) - 1) * stdev(values) / math.sqrt(len(values))
        low, high = _within_0_and_1(mean, half) if share else (mean - half, mean + half)
        return SeedEstimate(mean, low, high, len(values), interval)
    half = (max(values) - min(values)) / 2
    low, high = mean - half, mean + half
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return SeedEstimate(mean, low, high, len(values), "half_range")


def _within_0_and_1(mean: float, half: float) -> tuple[float, float]:
    """Lay an interval of a share around its logit, and take its ends back."""
    # A spread of 0 has no ends to move; any other leaves the mean between 0 and 1.
    if half == 0:
        return mean, mean
    # Delta method: the logit changes by 1 / (p (1 - p)) per unit of p.
    distance = half / (mean * (1 - mean))
    centre = float(logit(mean))
    return float(expit(centre - distance)), float(expit(centre + distance))


def with_standard_error(value: float, standard_error: float) -> SeedEstimate:
    """Estimate from a single seed whose metric knows its own sampling error."""
    # One standard error each way (about 68 %), not a 95 % interval, which is why it is a kind of
    # its own: it is the sampling error of one trained model and knows nothing of retraining it.
    low, high = value - standard_error, value + standard_error
    return SeedEstimate(value, low, high, 1, "standard_error")


def _by_number(seed: Seed) -> tuple[float, str]:
    # A trial without a recorded seed has its run id instead. Text and numbers do not compare in
    # Python, so run ids get a first part that sorts behind every number.
    return (float("inf"), seed) if isinstance(seed, str) else (seed, "")


def paired(first: Mapping[Seed, float], second: Mapping[Seed, float]) -> PairedDifference | None:
    """Compare two settings seed by seed; None where they share no seed."""
    seeds = tuple(sorted(first.keys() & second.keys(), key=_by_number))
    if not seeds:
        return None
    return PairedDifference(seeds, tuple(second[seed] - first[seed] for seed in seeds))


def student_t_975(freedom: int) -> float:
    """Look up the 97.5 % quantile of Student's t."""
    # The function behind `scipy.stats.t.ppf`; `scipy.stats` itself is slow to import.
    return float(stdtrit(freedom, 0.975))


@dataclass(frozen=True)
class PairedTest:
    """Test of the differences of shared seeds.

    Attributes:
        difference: second minus first, seed by seed.
        estimate: their mean, with a Student t interval from three seeds on.
        effect: mean over standard deviation of the differences, with Hedges' correction for few
            pairs (Lakens, Frontiers in Psychology 4:863, 2013); None below three
            seeds or without spread.
        p: two-sided sign-flip test (Fisher, The Design of Experiments, 1935): the share of all
            ways to swap the two settings of a seed whose mean differs at least as much.
        smallest_p: what p could be at best with so many seeds; 5 % needs six.
    """

    difference: PairedDifference
    estimate: SeedEstimate
    effect: float | None
    p: float
    smallest_p: float


def paired_test(difference: PairedDifference) -> PairedTest:
    """Test the differences of shared seeds; with up to 16 seeds the test is exact."""
    values, n = difference.differences, difference.n
    spread = stdev(values) if n > 1 else 0.0
    # The correction is 0 for two pairs: their spread says nothing about the size of an effect.
    # Hedges (1981): J = 1 - 3 / (4 df - 1), with df = n - 1 for n pairs.
    correction = 1 - 3 / (4 * (n - 1) - 1) if n > 2 else 0.0
    effect = correction * difference.mean / spread if correction > 0 and spread > 0 else None
    interval = estimate(values, "student_t")
    # Two of the 2^n sign patterns are always as extreme as the data: the data, and all signs
    # turned.
    return PairedTest(difference, interval, effect, sign_flip_p(values), 2 ** (1 - n))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Compute the sign-flip test's two-sided p; of more than 16 values from 2^16 random flips."""
    values = np.asarray(differences, float)
    if len(values) <= _EXACT_FLIPS:
        # Every sign pattern once; the bits of row 0 are all 0, which is the data as observed.
        bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (2**_EXACT_FLIPS, len(values)))
        # The data count among the draws, so p is never 0 (Phipson and Smyth, Statistical
        # Applications in Genetics and Molecular Biology 9(1), 2010). The fixed generator gives
        # equal data equal p.
        bits[0] = 0
    means = np.abs((1 - 2 * bits) @ values)
    # Sums of the same numbers in another order differ in the last bits.
    return float((means >= means[0] * (1 - 1e-12)).mean())


# 65,536 sign patterns: 8 MB of signs for 16 seeds, and a p that is good to .004 beyond.
_EXACT_FLIPS = 16


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of n pairs.

    Attributes:
        low: lower end of the 95 % interval; None below four pairs, which have none.
        p: two-sided permutation test.
    """

    rho: float
    low: float | None
    high: float | None
    n: int
    p: float


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Correlation | None:
    """Correlate ranks; None where fewer than three pairs or one side is constant.

    The interval is that of Bonett and Wright (Psychometrika 65(1), 2000) on Fisher's scale. At a
    perfect correlation, where that scale is infinite, it starts half-way to the next smaller
    value that n pairs can have.
    """
    n = len(xs)
    if n < 3 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    x, y = _standard_ranks(xs), _standard_ranks(ys)
    # Rounding error must not keep a perfect order from being exactly 1, which is tested for below.
    rho = round(float(x @ y), 12)
    p = _permutation_p(x, y)
    if n < 4:
        return Correlation(rho, None, None, n, p)
    # rho = 1 - 6 sum(d^2) / (n (n^2 - 1)). Swapping two neighbours has sum(d^2) = 2; half of the
    # step from a perfect order to that one is a sum of 1.
    largest = 1 - 6 / (n * (n**2 - 1))
    z = math.atanh(max(-largest, min(largest, rho)))
    # Bonett and Wright's variance of Fisher's z of ranks; it needs n > 3.
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    # An interval must hold its own estimate, which at ±1 was moved inwards to have a finite z.
    return Correlation(rho, -1.0 if rho == -1 else low, 1.0 if rho == 1 else high, n, p)


def _standard_ranks(values: Sequence[float]) -> Floats:
    """Compute ranks, equal values sharing theirs, centred and of length 1."""
    array = np.asarray(values, float)
    ranks = (array[:, None] > array).sum(1) + ((array[:, None] == array).sum(1) + 1) / 2
    # The dot product of two such vectors is Pearson's r of the ranks. That is Spearman's rho with
    # ties as well, where the formula in sum(d^2) is not.
    centred = ranks - ranks.mean()
    found: Floats = centred / np.linalg.norm(centred)
    return found


def _permutation_p(x: Floats, y: Floats) -> float:
    if len(x) <= _EXACT_PERMUTATIONS:
        # The first permutation that `itertools` yields is the identity: row 0 is the data.
        orders = np.array(list(permutations(range(len(x)))))
    else:
        rng = np.random.default_rng(0)
        orders = rng.permuted(np.tile(np.arange(len(x)), (_DRAWN_PERMUTATIONS, 1)), axis=1)
        orders[0] = np.arange(len(x))
    found = np.abs(y[orders] @ x)
    # Equal correlations differ in the last bits when they are summed in another order.
    return float((found >= found[0] - 1e-12).mean())


# 8! = 40,320 orders are quick to list, 9! are nine times as many.
_EXACT_PERMUTATIONS, _DRAWN_PERMUTATIONS = 8, 5_000
