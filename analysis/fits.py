"""Statistics over seeds as frozen results: estimates with an interval, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal

Interval = Literal["none", "half_range", "student_t", "standard_error"]
INTERVALS: dict[Interval, str] = {
    "none": "one seed, no interval",
    "half_range": "half the range over seeds (too few for a confidence interval)",
    "student_t": "95 % confidence interval over seeds (Student t)",
    "standard_error": "standard error of the metric itself, one seed",
}
"""What an interval is, in words for captions and footnotes."""

MIN_SEEDS_FOR_T = 3
"""With two seeds the t interval is 9 times the range: it would say nothing but 'two seeds'."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds and what its interval is; `low == high == mean` where it has none."""

    mean: float
    low: float
    high: float
    n: int
    interval: Interval

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first on the seeds that both have, in seed order."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of shared seeds."""
        return len(self.seeds)

    @property
    def mean(self) -> float:
        """Mean difference."""
        return fmean(self.differences)

    @property
    def spread(self) -> float:
        """Range of the differences."""
        return max(self.differences) - min(self.differences)

    @property
    def rises(self) -> int:
        """On how many seeds the second is the larger."""
        return sum(difference > 0 for difference in self.differences)

    @property
    def falls(self) -> int:
        """On how many seeds the second is the smaller."""
        return sum(difference < 0 for difference in self.differences)

    @property
    def same_sign(self) -> bool:
        """Whether every seed moves the same way."""
        return self.n in (self.rises, self.falls)


def estimate(values: Sequence[float], interval: Interval) -> Estimate:
    """Mean and interval of one value per seed.

    Args:
        values: finite, at least one.
        interval: kind wanted. A single value has none whatever is asked, and fewer than
            `MIN_SEEDS_FOR_T` have half their range: the result says which.
    """
    mean = fmean(values)
    if len(values) == 1:
        return Estimate(mean, mean, mean, 1, "none")
    if interval == "student_t" and len(values) >= MIN_SEEDS_FOR_T:
        half = student_t_975(len(values) - 1) * stdev(values) / math.sqrt(len(values))
        return Estimate(mean, mean - half, mean + half, len(values), interval)
    half = (max(values) - min(values)) / 2
    return Estimate(mean, mean - half, mean + half, len(values), "half_range")


def with_standard_error(value: float, standard_error: float) -> Estimate:
    """The estimate of a single seed whose metric knows its own sampling error."""
    low, high = value - standard_error, value + standard_error
    return Estimate(value, low, high, 1, "standard_error")


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> PairedDifference | None:
    """Compare two settings seed by seed; None where they share no seed."""
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    return PairedDifference(seeds, tuple(second[seed] - first[seed] for seed in seeds))


_T_975 = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706}


def student_t_975(freedom: int) -> float:
    """97.5 % quantile of Student's t, to 0.1 %.

    Tabulated up to five degrees of freedom, then the Cornish-Fisher expansion
    (Abramowitz and Stegun 26.7.5).
    """
    if freedom in _T_975:
        return _T_975[freedom]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
