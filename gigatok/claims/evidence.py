"""Evidence for a claim: an effect, its standard error, and how surprising it is by chance.

Each test has the unit that repeats independently: seeds, which settings share, where a claim is
about named settings; sizes, over whose seeds results are averaged, where it is about a trend
beyond them. Seeds of a size share that size's distance from a trend, so that they are no evidence
of their own for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from gigatok.claims.claim import Arm, Claim, Kind

Floats = npt.NDArray[np.float64]
Results = Mapping[str, Mapping[int, float]]
"""Setting -> seed -> finite value of the claim's metric."""
ROUNDING = 1e-10
"""Share of a number that arithmetic may have changed; results differ by more."""


@dataclass(frozen=True)
class Effect:
    """Mean or slope, and what chance could have made of it.

    Attributes:
        size: in the unit of the results.
        error: standard error; 0 where the results lie on the mean or the line exactly.
        freedom: degrees of freedom of that error.
        chance: of results without any spread how often an exact test gives them to one side.
        blur: distance from a margin within which such results say nothing.
    """

    size: float
    error: float
    freedom: int
    chance: float
    blur: float = 0.0

    def beyond(self, margin: float) -> tuple[float, float]:
        """Test against a margin: one-sided p that the effect is above, and that it is below."""
        distance = self.size - margin
        if self.error > 0:
            t = distance / self.error
            return float(stdtr(self.freedom, -t)), float(stdtr(self.freedom, t))
        # Scores in steps, such as shares of few images, agree by chance. Their spread then says
        # nothing, and Student's t would be certain; signs and orders are left.
        if abs(distance) <= max(self.blur, ROUNDING * max(abs(self.size), abs(margin))):
            return 1.0, 1.0
        return (self.chance, 1.0) if distance > 0 else (1.0, self.chance)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the two-sided Student interval of the size that misses it this often."""
        half = _half_width(self.error, self.freedom, level)
        return self.size - half, self.size + half


def _half_width(error: float, freedom: int, level: float) -> float:
    return float(-stdtrit(freedom, level / 2)) * error


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
        half = _half_width(self.error, self.freedom, level)
        return self.effect - half, self.effect + half


def weigh(claim: Claim, results: Results) -> Evidence | None:
    """Weigh the results of a claim's settings; None: they are too few for its test."""
    return _TESTS[claim.kind](claim, results)


def shared_seeds(claim: Claim, results: Results) -> list[int]:
    """List the seeds of which every setting of a claim has a result."""
    found = [set(results.get(setting, {})) for setting in claim.settings]
    return sorted(set.intersection(*found))


def paired_effect(differences: Floats, rounding: float, blur: float = 0.0) -> Effect:
    """Average the differences of shared seeds.

    Args:
        differences: of each seed, at least two.
        rounding: what arithmetic leaves of a difference of 0.
        blur: half the step in which results may differ.
    """
    n = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    size = float(differences.mean())
    # All signs alike, of 2^n patterns: the exact sign flip test. Below half a step it does not
    # hold: rounded results are mostly 0 where their mean is a tenth of a step.
    return Effect(
        0.0 if abs(size) <= rounding else size,
        0.0 if error <= rounding else error,
        n - 1,
        2.0**-n,
        max(blur, rounding),
    )


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


def _paired(claim: Claim, results: Results, seeds: list[int], at: int = 0) -> Effect:
    """Average the step after an arm over the shared seeds."""
    largest = max(abs(results[setting][s]) for setting in claim.settings for s in seeds)
    step = _step(claim, results, seeds)
    return paired_effect(_differences(claim, results, seeds, at), ROUNDING * largest, step / 2)


def _step(claim: Claim, results: Results, seeds: Sequence[int]) -> float:
    """Find the step in which scores differ, such as 1/128 of a share of 128 images; 0: none."""
    scores = np.unique([results[setting][s] for setting in claim.settings for s in seeds])
    gaps = np.diff(scores)
    # The smallest is no less than the metric's own step; numbers of any size are no multiples.
    step = float(min(gaps[gaps > ROUNDING * np.abs(scores).max()], default=0.0))
    if step == 0:
        return 0.0
    steps = (scores - scores[0]) / step
    return step if np.abs(steps - steps.round()).max() < 1e-3 else 0.0


def _difference(claim: Claim, results: Results) -> Evidence | None:
    seeds = shared_seeds(claim, results)
    if len(seeds) < 2:
        return None
    effect = _paired(claim, results, seeds)
    return _evidence(effect, len(seeds), *effect.beyond(claim.margin))


def _equivalence(claim: Claim, results: Results) -> Evidence | None:
    """Make two one-sided tests (Schuirmann 1987): inside both ends of the margin."""
    seeds = shared_seeds(claim, results)
    if len(seeds) < 2:
        return None
    effect = _paired(claim, results, seeds)
    return _evidence(effect, len(seeds), *_within(effect, claim.margin))


def _within(effect: Effect, margin: float) -> tuple[float, float]:
    """Test against both ends of a margin: one-sided p that the effect is inside, and outside."""
    above, below = effect.beyond(margin)
    under, over = effect.beyond(-margin)
    # Inside: below the upper end and above the lower one; outside: beyond either, which is two
    # chances.
    return max(below, under), min(1.0, 2 * min(above, over))


def _order(claim: Claim, results: Results) -> Evidence | None:
    """Test every step: all must go as claimed, or any the other way."""
    seeds = shared_seeds(claim, results)
    if len(seeds) < 2:
        return None
    steps = [_paired(claim, results, seeds, at) for at in range(len(claim.families[0]) - 1)]
    tests = [step.beyond(claim.margin) for step in steps]
    # An intersection of hypotheses needs no correction, a union does (Berger 1982).
    p_against = min(1.0, len(tests) * min(against for _, against in tests))
    p_for = max(p for p, _ in tests)
    return _evidence(min(steps, key=lambda step: step.size), len(seeds), p_for, p_against)


# Claims beyond the settings that were run: sizes repeat


def _size_means(claim: Claim, results: Results) -> list[tuple[Floats, Floats]] | None:
    """Average each setting over its seeds: for each family x and means, ascending by x."""
    made = []
    for family in claim.families:
        have = [arm for arm in family if results.get(arm.setting)]
        if len(have) < len(family):
            return None
        pairs = [(_size(arm), float(np.mean(list(results[arm.setting].values())))) for arm in have]
        x, y = np.array(sorted(pairs)).T
        made.append((x, y))
    return made


def pooled_slope(families: Sequence[tuple[Floats, Floats]]) -> Effect | None:
    """Fit one slope through families of points (x, y), each with an intercept of its own.

    Returns:
        None where too few points are left, or none differ in x.
    """
    # Centred within families: what is left has no intercepts.
    xs = np.concatenate([x - x.mean() for x, _ in families])
    ys = np.concatenate([y - y.mean() for _, y in families])
    freedom = len(xs) - len(families) - 1
    spread = float(xs @ xs)
    if freedom < 1 or spread == 0:
        return None
    slope = float(xs @ ys) / spread
    off = float(np.sqrt(((ys - slope * xs) ** 2).sum()))
    # On a line exactly: of all orders of a family's points one is this steep.
    orders = math.prod(math.factorial(len(np.unique(x))) for x, _ in families)
    exact = off <= ROUNDING * max(float(np.abs(y).max()) for _, y in families)
    error = 0.0 if exact else off / math.sqrt(freedom * spread)
    return Effect(slope, error, freedom, 1 / orders)


def _trend(claim: Claim, results: Results) -> Evidence | None:
    """Regress means on the logarithm of size: one slope, an intercept for each family."""
    families = _size_means(claim, results)
    turn = 1.0 if claim.rises else -1.0
    lines = [(np.log2(x), turn * y) for x, y in families or ()]
    effect = pooled_slope(lines) if lines else None
    if effect is None:
        return None
    seeds = len(shared_seeds(claim, results))
    return _evidence(effect, seeds, *effect.beyond(claim.margin))


def _prediction(claim: Claim, results: Results) -> Evidence | None:
    """Compare the largest size with the power law through the smaller ones, in logarithms."""
    families, seeds = _size_means(claim, results), shared_seeds(claim, results)
    if families is None or families[0][1].min() <= 0 or not seeds:
        return None
    # The largest setting tells as well whether scores come in steps.
    predicted = extrapolate(claim, results, _step(claim, results, seeds))
    if predicted is None:
        return None
    _, y = np.log(families[0])
    # Where all smaller sizes lie on the law, chance may have picked any size to lie elsewhere.
    off = Effect(float(y[-1]) - predicted.size, predicted.error, predicted.freedom, 1 / len(y))
    return _evidence(off, len(seeds), *_within(off, math.log1p(claim.margin)))


def extrapolate(claim: Claim, results: Results, step: float | None = None) -> Effect | None:
    """Extend the power law through the smaller sizes of a prediction to its largest one.

    Args:
        claim: a prediction.
        results: of the smaller settings; the largest is not looked at.
        step: in which scores differ; None: as these results do.

    Returns:
        The logarithm of what is expected, with the error of one further size; None where a smaller
        setting has no result, one is not positive, or they share no seed.
    """
    # One family: errors of two laws have no common freedom.
    if len(claim.families) > 1:
        return None
    *smaller, largest = sorted(claim.families[0], key=_size)
    known = claim.model_copy(update={"families": (tuple(smaller),)})
    families, seeds = _size_means(known, results), shared_seeds(known, results)
    if families is None or families[0][1].min() <= 0 or not seeds:
        return None
    x, y = np.log(families[0])
    law = pooled_slope([(x, y)])
    assert law is not None, f"{claim.name}: a prediction has three smaller sizes"
    centred = x - x.mean()
    ahead, spread = math.log(_size(largest)) - x.mean(), float(centred @ centred)
    # Means of scores in steps may lie on a law nearly; rounding alone moves each of them by so
    # much: the deviation of a uniform error, over seeds, as a share of the smallest mean.
    step = _step(known, results, seeds) if step is None else step
    rounded = step / math.sqrt(12 * len(seeds)) / math.exp(y.min())
    off_law = max(law.error, rounded / math.sqrt(spread)) if law.error > 0 else 0.0
    # The largest size lies off the law by itself, as all sizes do: hence the first 1.
    error = off_law * math.sqrt(spread * (1 + 1 / len(x)) + ahead**2)
    return Effect(float(y.mean() + law.size * ahead), error, law.freedom, 1 / len(x))


def _size(arm: Arm) -> float:
    assert arm.x is not None, f"{arm.setting}: planning gives sizes to trends and predictions"
    return arm.x


def _evidence(effect: Effect, seeds: int, p_for: float, p_against: float) -> Evidence:
    return Evidence(effect.size, effect.error, effect.freedom, seeds, p_for, p_against)


_TESTS: dict[Kind, Callable[[Claim, Results], Evidence | None]] = {
    "trend": _trend,
    "order": _order,
    "difference": _difference,
    "equivalence": _equivalence,
    "prediction": _prediction,
}
