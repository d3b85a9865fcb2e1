"""Evidence for a claim: an effect, its standard error, and how surprising it is by chance.

Each test has the unit that repeats independently: seeds, which settings share, where a claim is
about named settings; sizes, over whose seeds results are averaged, where it is about a trend
beyond them. Seeds of a size share that size's distance from a trend, so that they are no evidence
of their own for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from gigatok.claims.claim import Claim, Kind

Floats = npt.NDArray[np.float64]
Results = Mapping[str, Mapping[int, float]]
"""Setting -> seed -> finite value of the claim's metric."""


@dataclass(frozen=True)
class Evidence:
    """Weight of the results so far for and against a claim.

    Attributes:
        effect: in the claim's direction: positive is as claimed. Of a trend per doubling of the
            quantity; of an order the least step; of an equivalence the difference; of a
            prediction the logarithm of observed over predicted.
        error: its standard error.
        freedom: degrees of freedom of that error.
        seeds: seeds that all settings of the claim share.
        p_for: how often chance alone would speak for the claim as clearly, were it just not true.
        p_against: the same against it. Both are one-sided.
    """

    effect: float
    error: float
    freedom: int
    seeds: int
    p_for: float
    p_against: float

    @property
    def p(self) -> float:
        """Two-sided p: a verdict may fall either way."""
        return min(1.0, 2 * min(self.p_for, self.p_against))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the two-sided Student interval of the effect that misses it this often."""
        half = float(-stdtrit(self.freedom, level / 2)) * self.error
        return self.effect - half, self.effect + half


def weigh(claim: Claim, results: Results) -> Evidence | None:
    """Weigh the results of a claim's settings; None: they are too few for its test."""
    return _TESTS[claim.kind](claim, results)


def shared_seeds(claim: Claim, results: Results) -> list[int]:
    """List the seeds of which every setting of a claim has a result."""
    found = [set(results.get(setting, {})) for setting in claim.settings]
    return sorted(set.intersection(*found))


def beyond(effect: float, error: float, freedom: int, margin: float) -> tuple[float, float]:
    """Test an effect against a margin: one-sided p that it is above, and that it is below."""
    if error == 0:
        # Equal differences on every seed: of numbers that are computed exactly alike. What is
        # certain is said so; a difference of exactly the margin is on neither side.
        return float(effect <= margin), float(effect >= margin)
    t = (effect - margin) / error
    return float(stdtr(freedom, -t)), float(stdtr(freedom, t))


# Claims about named settings: seeds repeat


def _differences(claim: Claim, results: Results, seeds: list[int], at: int = 0) -> Floats:
    """Take the step after an arm, seed by seed, averaged over families: one value per seed.

    Seeds draw the same weights and batches in all settings, so that a difference within a seed
    has less noise than one of means.
    """
    sign = 1.0 if claim.rises else -1.0
    steps = [
        [results[family[at + 1].setting][s] - results[family[at].setting][s] for s in seeds]
        for family in claim.families
    ]
    means: Floats = np.array(steps, float).mean(0)
    return sign * means


def _mean(values: Floats) -> tuple[float, float, int]:
    """Return the mean, its standard error and the degrees of freedom."""
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    # Rounding leaves a spread where all differences are equal.
    if error < 1e-12 * float(np.abs(values).max()):
        error = 0.0
    return float(values.mean()), float(error), len(values) - 1


def _difference(claim: Claim, results: Results) -> Evidence | None:
    seeds = shared_seeds(claim, results)
    if len(seeds) < 2:
        return None
    effect, error, freedom = _mean(_differences(claim, results, seeds))
    p_for, p_against = beyond(effect, error, freedom, claim.margin)
    return Evidence(effect, error, freedom, len(seeds), p_for, p_against)


def _equivalence(claim: Claim, results: Results) -> Evidence | None:
    """Make two one-sided tests (Schuirmann 1987): inside both ends of the margin."""
    seeds = shared_seeds(claim, results)
    if len(seeds) < 2:
        return None
    effect, error, freedom = _mean(_differences(claim, results, seeds))
    above, below = beyond(effect, error, freedom, claim.margin)
    under, over = beyond(effect, error, freedom, -claim.margin)
    # Inside: below the upper end and above the lower one; outside: beyond either, which is two
    # chances.
    return Evidence(
        effect, error, freedom, len(seeds), max(below, under), min(1.0, 2 * min(above, over))
    )


def _order(claim: Claim, results: Results) -> Evidence | None:
    """Test every step: all must go as claimed, or any the other way."""
    seeds = shared_seeds(claim, results)
    if len(seeds) < 2:
        return None
    steps = [
        _mean(_differences(claim, results, seeds, at)) for at in range(len(claim.families[0]) - 1)
    ]
    tests = [beyond(*step, claim.margin) for step in steps]
    effect, error, freedom = min(steps)
    # An intersection of hypotheses needs no correction, a union does (Berger 1982).
    p_against = min(1.0, len(tests) * min(against for _, against in tests))
    p_for = max(p for p, _ in tests)
    return Evidence(effect, error, freedom, len(seeds), p_for, p_against)


# Claims beyond the settings that were run: sizes repeat


def _size_means(claim: Claim, results: Results) -> list[tuple[Floats, Floats]] | None:
    """Average each setting over its seeds: for each family x and means, ascending by x."""
    made = []
    for family in claim.families:
        have = [arm for arm in family if results.get(arm.setting)]
        if len(have) < len(family):
            return None
        pairs = []
        for arm in have:
            assert arm.x is not None, f"{claim.name}: planning gives sizes to a {claim.kind}"
            pairs.append((arm.x, float(np.mean(list(results[arm.setting].values())))))
        x, y = np.array(sorted(pairs)).T
        made.append((x, y))
    return made


def pooled_slope(families: Sequence[tuple[Floats, Floats]]) -> tuple[float, float, int] | None:
    """Fit one slope through families of points (x, y), each with an intercept of its own.

    Returns:
        The slope, its standard error and the degrees of freedom; None where too few points are
        left, or none differ in x.
    """
    # Centred within families: what is left has no intercepts.
    xs = np.concatenate([x - x.mean() for x, _ in families])
    ys = np.concatenate([y - y.mean() for _, y in families])
    freedom = len(xs) - len(families) - 1
    spread = float(xs @ xs)
    if freedom < 1 or spread == 0:
        return None
    slope = float(xs @ ys) / spread
    error = float(np.sqrt(((ys - slope * xs) ** 2).sum() / freedom / spread))
    return slope, error, freedom


def _trend(claim: Claim, results: Results) -> Evidence | None:
    """Regress means on the logarithm of size: one slope, an intercept for each family."""
    families = _size_means(claim, results)
    found = None if families is None else pooled_slope([(np.log2(x), y) for x, y in families])
    if found is None:
        return None
    slope, error, freedom = found
    effect = slope if claim.rises else -slope
    p_for, p_against = beyond(effect, error, freedom, claim.margin)
    seeds = len(shared_seeds(claim, results))
    return Evidence(effect, error, freedom, seeds, p_for, p_against)


def _prediction(claim: Claim, results: Results) -> Evidence | None:
    """Compare the largest size with the power law through the smaller ones, in logarithms."""
    families = _size_means(claim, results)
    # One family: errors of two laws have no common freedom.
    if families is None or len(families) > 1:
        return None
    x, y = np.log(families[0])
    middle = x[:-1].mean()
    centred = x[:-1] - middle
    slope = float(centred @ y[:-1] / (centred @ centred))
    line = y[:-1].mean() + slope * centred
    freedom = len(centred) - 2
    sigma = float(np.sqrt(((y[:-1] - line) ** 2).sum() / freedom))
    effect = float(y[-1] - y[:-1].mean() - slope * (x[-1] - middle))
    # The largest size lies off the law by itself, as all sizes do: hence the first 1.
    reach = (x[-1] - middle) ** 2 / float(centred @ centred)
    error = sigma * float(np.sqrt(1 + 1 / len(centred) + reach))
    margin = float(np.log1p(claim.margin))
    above, below = beyond(effect, error, freedom, margin)
    under, over = beyond(effect, error, freedom, -margin)
    seeds = len(shared_seeds(claim, results))
    p_against = min(1.0, 2 * min(above, over))
    return Evidence(effect, error, freedom, seeds, max(below, under), p_against)


_TESTS: dict[Kind, Callable[[Claim, Results], Evidence | None]] = {
    "trend": _trend,
    "order": _order,
    "difference": _difference,
    "equivalence": _equivalence,
    "prediction": _prediction,
}
