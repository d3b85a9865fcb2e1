"""The rate-distortion plane: bits that the AR probe needs for an image, against what is lost.

A tokenizer is better only where it loses less at the same rate: families are compared by their
fronts, over the rates that both reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.statistics.estimates import Interval, SeedEstimate
from analysis.statistics.groups import (
    SEMANTIC_WEIGHT,
    Group,
    choose_interval,
    groups,
    require_one_way,
    short,
    show,
)
from analysis.statistics.pareto import undominated
from gigatok.names import METRICS

RATE = "ar_bits_per_image"
DISTORTIONS = ("psnr", "lpips")
# Enough for the 2.5 % and 97.5 % percentiles: 50 replicates lie beyond each.
REPLICATES = 2000
Pairs = npt.NDArray[np.float64]
"""Rate and distortion of each seed, (seeds, 2)."""


@dataclass(frozen=True)
class RatePoint:
    """Setting in the plane: mean rate and distortion, and the pairs of each seed."""

    group: Group
    rate: SeedEstimate
    distortion: SeedEstimate
    seeds: tuple[tuple[float, float], ...]
    on_front: bool


@dataclass(frozen=True)
class Front:
    """Family of settings, by rate; `points` on the front are beaten by none of the family.

    Attributes:
        setting: key and value that tell the family from others; None where there is one only.
    """

    family: str
    setting: tuple[str, Any] | None
    points: tuple[RatePoint, ...]

    @property
    def front(self) -> list[RatePoint]:
        """Select the points of the front alone."""
        return [point for point in self.points if point.on_front]


@dataclass(frozen=True)
class Gap:
    """Mean difference of two fronts in distortion, second minus first, over shared rates.

    Attributes:
        rates: the range of rates that both fronts span.
        low: lower end of the 95 % interval from drawing the seeds of every setting again; None
            where a setting has a single seed.
    """

    metric: str
    first: str
    second: str
    rates: tuple[float, float]
    gap: float
    low: float | None
    high: float | None

    @property
    def sentence(self) -> str:
        """Say the gap in words."""
        score = METRICS[self.metric]
        unit = f" {score.unit}" if score.unit else ""
        text = (
            f"{score.label} at equal rate, {self.first} → {self.second}: {self.gap:+.3g}{unit} on "
            f"average from {self.rates[0]:.4g} to {self.rates[1]:.4g} bits per image"
        )
        if self.low is None or self.high is None:
            return f"{text}; one seed of some setting, so no interval."
        shown = "a difference" if self.low > 0 or self.high < 0 else "no difference is shown"
        return f"{text} [{self.low:+.3g}, {self.high:+.3g}]: {shown}."


def family_column(runs: pl.DataFrame) -> str | None:
    """Choose what tells families apart: variant, else semantic weight, else another axis."""
    # Every group has the same identity columns, the tokenizer always first.
    identity = list(groups(runs)[0].identity)
    preferred = [c for c in ("tokenizer.variant", SEMANTIC_WEIGHT) if c in identity]
    return next(iter([*preferred, *identity[1:]]), None)


def fronts(runs: pl.DataFrame, metric: str = "psnr", family: str | None = None) -> list[Front]:
    """Collect the settings of each family in the plane, those on its front marked.

    Args:
        runs: what `load_runs` returned.
        metric: a distortion, such as `psnr` or `lpips`; measured in one way.
        family: a column; None for `family_column`.

    Raises:
        RequestError: the distortion was measured in several ways.
    """
    found = groups(runs)
    column = family or family_column(runs)
    members: dict[str, list[Group]] = {}
    settings: dict[str, tuple[str, Any] | None] = {}
    # A point in the plane is a pair: seeds that have only one of the two would move one mean
    # alone.
    both = [group.with_all(RATE, metric) for group in found]
    both = [group for group in both if group.rows]
    require_one_way(both, metric, "front")
    for group in both:
        value = group.identity.get(column) if column else None
        name = "all" if column is None else f"{short(column)}={show(value)}"
        members.setdefault(name, []).append(group)
        settings[name] = (column, value) if column else None
    kind = choose_interval(found)
    return [_front(n, settings[n], part, metric, kind) for n, part in members.items()]


def gaps(found: Sequence[Front], metric: str = "psnr", *, seed: int = 0) -> list[Gap]:
    """Measure the gap between the first family and each other whose rates overlap with it."""
    made = []
    for other in found[1:]:
        # Seeds of a point differ in number between settings, so that each is an array of its own.
        first, second = ([np.array(p.seeds) for p in f.points] for f in (found[0], other))
        gap = _gap(first, second, metric)
        if gap is not None:
            low, high = _gap_interval(first, second, metric, np.random.default_rng(seed))
            rates, value = gap
            made.append(Gap(metric, found[0].family, other.family, rates, value, low, high))
    return made


def _pairs(group: Group, metric: str) -> list[tuple[float, float]]:
    rates, losses = group.values(RATE), group.values(metric)
    return [(rates[seed], losses[seed]) for seed in sorted(rates.keys() & losses.keys())]


def _front(
    family: str,
    setting: tuple[str, Any] | None,
    members: Sequence[Group],
    metric: str,
    kind: Interval,
) -> Front:
    pairs = [_pairs(group, metric) for group in members]
    # The front is one of means: of single seeds it would pick the luckiest ones.
    best = _on_front(np.array([np.mean(p, 0) for p in pairs]), metric)
    points = []
    for group, seeds, on_front in zip(members, pairs, best, strict=True):
        rate, loss = group.estimate(RATE, kind), group.estimate(metric, kind)
        assert loss is not None, "a group in the plane has one protocol"
        if rate is not None:
            points.append(RatePoint(group, rate, loss, tuple(seeds), bool(on_front)))
    return Front(family, setting, tuple(sorted(points, key=lambda point: point.rate.mean)))


def _on_front(means: Pairs, metric: str) -> list[bool]:
    """Find each (rate, distortion) that no other beats: a rate as low and a distortion as good."""
    # `undominated` takes costs, so PSNR is turned around and LPIPS is not.
    sign = -1.0 if METRICS[metric].better == "higher" else 1.0
    return undominated([(rate, sign * loss) for rate, loss in means.tolist()])


def _curve(seeds: Sequence[Pairs], metric: str) -> Pairs:
    """Find the front of the means, (points, 2), by rising rate."""
    means = np.array([pairs.mean(0) for pairs in seeds])
    front = means[_on_front(means, metric)]
    found: Pairs = front[np.argsort(front[:, 0], kind="stable")]
    return found


def _gap(
    first: Sequence[Pairs], second: Sequence[Pairs], metric: str
) -> tuple[tuple[float, float], float] | None:
    """Find shared rates, and the mean difference of the fronts joined by straight lines."""
    curves = [_curve(part, metric) for part in (first, second)]
    low = max(float(curve[0, 0]) for curve in curves)
    high = min(float(curve[-1, 0]) for curve in curves)
    # Without common rates any difference would be one of rate, not of the tokenizers.
    if high <= low:
        return None
    # Both fronts are piecewise linear; 201 rates are fine enough for their mean difference.
    rates = np.linspace(low, high, 201)
    one, two = (np.interp(rates, curve[:, 0], curve[:, 1]) for curve in curves)
    return (low, high), float(np.mean(two - one))


def _gap_interval(
    first: Sequence[Pairs], second: Sequence[Pairs], metric: str, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """Take percentiles over parametric replicates: seeds drawn anew around each setting's mean.

    The spread is that of the setting's own seeds, with the correction for their small number;
    drawing two or three seeds with replacement would show too little of it.
    """
    # One seed has no spread to draw from; an interval that took it as exact would be too short.
    if min(len(pairs) for pairs in (*first, *second)) < 2:
        return None, None
    found = []
    # The front is found anew in every replicate: which settings are on it is uncertain as well.
    for _ in range(REPLICATES):
        parts = [[_drawn(pairs, rng) for pairs in part] for part in (first, second)]
        gap = _gap(parts[0], parts[1], metric)
        if gap is not None:
            found.append(gap[1])
    # Replicates whose fronts share no rates are left out: they say nothing about the gap.
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _drawn(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    n = len(pairs)
    centred = pairs - pairs.mean(0)
    # Student t with n - 1 degrees of freedom: the spread itself is only estimated.
    # A random combination of the deviations has their covariance: rate and distortion of one seed
    # stay correlated. Dividing by n (n - 1) makes it the covariance of the mean.
    noise = rng.normal(size=n) @ centred / np.sqrt(n * (n - 1))
    heavier = np.sqrt((n - 1) / rng.chisquare(n - 1))
    found: Pairs = (pairs.mean(0) + noise * heavier)[None]
    return found
