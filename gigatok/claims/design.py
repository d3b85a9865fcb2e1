"""Choice of the next runs of a study: those that tell most about its claims per hour.

A prediction wants a narrow interval at the largest size, everything else a high probability to be
decided. Both depend on which sizes have how many seeds, and on noise of two kinds: a size lies off
the law by itself, which more of its seeds do not change, and seeds differ. So the variance of a
prediction can be computed before anything runs, as in optimal design for a linear model (Atkinson,
Donev and Tobias 2007, chapters 9 and 10; the criterion is c-optimality), and the runs are chosen
one after the other, each time what gains most per hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from gigatok.claims.claim import Arm, Claim
from gigatok.claims.evidence import ROUNDING, Evidence, Floats, Results
from gigatok.claims.power import aim_of, found_by_t, power
from gigatok.claims.verdicts import LEVEL

Seeds = Mapping[str, frozenset[int]]
"""Setting -> seeds that have run, or would have."""
FEWEST_SIZES = 3
"""Sizes of a line whose distance from it says something."""
AT_ONCE = 8
"""Most seeds of a setting that are weighed as one step: the first of them alone may decide
nothing."""
LEAST_GAIN = 1e-6
"""Gain of a step that rounding alone may show."""


@dataclass(frozen=True)
class Noise:
    """Variances of one result around a law: between sizes, and between the seeds of a size."""

    sizes: float
    seeds: float

    def of_mean(self, count: int) -> float:
        """Compute the variance of a size's mean over some seeds."""
        return self.sizes + self.seeds / count


UNKNOWN = Noise(0.5, 0.5)
"""Noise of which nothing is known: halves of a variance of 1, so that widths are in standard
deviations of one run."""


@dataclass(frozen=True)
class Goal:
    """Claim that more runs may settle, as a number that depends on which runs there are.

    Attributes:
        state: of a prediction half the width of its interval, infinite with too few sizes; of
            other claims the probability that their test decides them.
        narrows: true of a prediction: its state is to fall, and is no probability.
        arms: settings whose next seeds can help, each by itself; empty where all seeds of the
            claim's settings belong together.
    """

    claim: Claim
    state: Callable[[Seeds], float]
    narrows: bool
    arms: tuple[Arm, ...] = ()

    def gain(self, before: float, after: float) -> float:
        """Weigh a change of the state from 0 to 1: variance that is removed, or probability."""
        if not self.narrows:
            return after - before
        if math.isinf(before):
            # From no interval to one: the narrower the better, and better than any narrowing.
            return 0.0 if math.isinf(after) else 1 + 1 / (1 + after**2)
        return 1 - (after / before) ** 2


@dataclass(frozen=True)
class Step:
    """Runs that are proposed together.

    Attributes:
        runs: setting -> its new seeds.
        hours: that they take beyond those of the steps before.
        before: states of the goals without them, in the order of the goals.
        after: states with them.
    """

    runs: Mapping[str, tuple[int, ...]]
    hours: float
    before: tuple[float, ...]
    after: tuple[float, ...]

    def gains(self, goals: Sequence[Goal]) -> list[float]:
        """Weigh what it changes of each goal."""
        pairs = zip(goals, self.before, self.after, strict=True)
        return [goal.gain(before, after) for goal, before, after in pairs]


# Noise


def estimate_noise(x: Sequence[float], values: Sequence[Sequence[float]]) -> Noise | None:
    """Split the variance around a line into that between sizes and that between seeds.

    Args:
        x: of each size, where the law is a line.
        values: of each size, a value per seed.

    Returns:
        None where neither three sizes nor two seeds of a size tell of any noise, or all show none.
    """
    noise = _split(x, values)
    # Of equal scores: as if nothing were known, since a variance of 0 would leave nothing to run.
    rounding = ROUNDING * max((abs(v) for of in values for v in of), default=0.0)
    return noise if noise is not None and noise.of_mean(1) > rounding**2 else None


def _split(x: Sequence[float], values: Sequence[Sequence[float]]) -> Noise | None:
    """Split the variance, which may be 0."""
    spare = sum(len(v) - 1 for v in values)
    seeds = sum(float(np.var(v)) * len(v) for v in values) / spare if spare else None
    if len(x) < FEWEST_SIZES:
        return None if seeds is None else Noise(seeds, seeds)
    centred = np.asarray(x, float) - np.mean(x)
    means = np.array([np.mean(v) for v in values])
    slope = centred @ means / (centred @ centred)
    residual = ((means - means.mean() - slope * centred) ** 2).sum()
    freedom = len(x) - 2
    if seeds is None:
        half = float(residual) / freedom / 2
        return Noise(half, half)
    sizes = max(0.0, residual - freedom * seeds * float(np.mean([1 / len(v) for v in values])))
    # As if one size more had said that sizes vary as seeds do: a variance of few sizes is often
    # near 0 by chance, and then nothing but more seeds would seem worth running.
    return Noise(float(sizes + seeds) / (freedom + 1), seeds)


# States of claims


def half_width(x: Floats, counts: Sequence[int], target: float, seeds: int, noise: Noise) -> float:
    """Compute half the 95 % interval of a size's mean, predicted by the line through others.

    The line is fitted to means that count alike, as in `gigatok.claims.evidence`.

    Args:
        x: of the sizes, where the law is a line.
        counts: seeds of each.
        target: x of the size that is predicted.
        seeds: of that size.
        noise: around the line.
    """
    freedom = len(x) - 2
    centred = x - x.mean() if len(x) else x
    spread = float(centred @ centred)
    if freedom < 1 or spread == 0:
        return math.inf
    # Weight of each mean in the prediction: far sizes on the target's side count most.
    weights = 1 / len(x) + (target - x.mean()) / spread * centred
    variances = np.array([noise.of_mean(count) for count in counts])
    variance = noise.of_mean(seeds) + float(weights**2 @ variances)
    return float(-stdtrit(freedom, LEVEL / 2)) * math.sqrt(variance)


def slope_error(
    families: Sequence[tuple[Floats, Sequence[int]]], noise: Noise
) -> tuple[float, int]:
    """Compute the standard error of the slope that families share, and its freedom.

    Args:
        families: x of each one's sizes, where the trend is a line, and their seeds.
        noise: around the lines.
    """
    families = [(x, counts) for x, counts in families if len(x)]
    xs = np.concatenate([np.zeros(0), *(x - x.mean() for x, _ in families)])
    variances = np.array([noise.of_mean(n) for _, counts in families for n in counts])
    freedom, spread = len(xs) - len(families) - 1, float(xs @ xs)
    if freedom < 1 or spread == 0:
        return math.inf, 0
    return math.sqrt(float(xs**2 @ variances)) / spread, freedom


def prediction_goal(claim: Claim, noise: Noise, seeds: int) -> Goal:
    """Make the goal of a narrow interval at the largest size.

    Args:
        claim: with every size that may be run.
        noise: of the logarithm of the metric.
        seeds: that the largest size will have at least.
    """
    *smaller, target = claim.families[0]

    def state(have: Seeds) -> float:
        x, counts = _sizes(smaller, have, math.log)
        at_target = max(seeds, len(have.get(target.setting, ())))
        return half_width(x, counts, _log(target, math.log), at_target, noise)

    return Goal(claim, state, True, tuple(claim.families[0]))


def trend_goal(claim: Claim, noise: Noise, effect: float, level: float) -> Goal:
    """Make the goal of deciding a trend.

    Args:
        claim: with every size that may be run.
        noise: of the metric.
        effect: slope per doubling in the claim's direction.
        level: of the test.
    """

    def state(have: Seeds) -> float:
        families = [_sizes(family, have, math.log2) for family in claim.families]
        error, freedom = slope_error(families, noise)
        if freedom < 1:
            return 0.0
        return found_by_t(abs(effect - claim.margin) / error, freedom, level)

    arms = {arm.setting: arm for family in claim.families for arm in family}
    return Goal(claim, state, False, tuple(arms.values()))


def seeds_goal(claim: Claim, seen: Evidence, level: float) -> Goal:
    """Make the goal of deciding a claim about named settings by more seeds of all of them.

    Args:
        claim: a difference, an equivalence or an order.
        seen: what its results say so far, or those of an earlier study.
        level: of the test.
    """
    aim, spread = aim_of(claim, seen.effect), seen.error * math.sqrt(seen.seeds)

    def state(have: Seeds) -> float:
        shared = frozenset.intersection(*(have.get(s, frozenset()) for s in claim.settings))
        if len(shared) < 2:
            return 0.0
        return power(seen.effect, spread, len(shared), level, aim)

    return Goal(claim, state, False)


def noise_of(
    families: Sequence[Sequence[Arm]],
    results: Results,
    log: Callable[[float], float],
    space: Callable[[float], float],
) -> Noise | None:
    """Estimate the noise around the lines of families, each weighed by its sizes.

    Args:
        families: settings and their sizes.
        results: setting -> seed -> value.
        log: of sizes.
        space: of values, in which laws are lines.
    """
    found: list[tuple[int, Noise]] = []
    for family in families:
        known = [arm for arm in family if results.get(arm.setting)]
        values = [[space(v) for v in results[arm.setting].values()] for arm in known]
        noise = estimate_noise([_log(arm, log) for arm in known], values)
        if noise is not None:
            found.append((len(known), noise))
    if not found:
        return None
    total = sum(n for n, _ in found)
    return Noise(
        sum(n * noise.sizes for n, noise in found) / total,
        sum(n * noise.seeds for n, noise in found) / total,
    )


def predict(claim: Claim, results: Results) -> float | None:
    """Predict the largest size of a claim by the power law through the smaller ones that ran."""
    *smaller, target = claim.families[0]
    known = [arm for arm in smaller if results.get(arm.setting)]
    if len(known) < FEWEST_SIZES:
        return None
    x = [_log(arm, math.log) for arm in known]
    y = [float(np.mean(np.log(list(results[arm.setting].values())))) for arm in known]
    slope, start = np.polyfit(x, y, 1)
    return math.exp(start + slope * _log(target, math.log))


def _log(arm: Arm, log: Callable[[float], float]) -> float:
    assert arm.x is not None, f"{arm.setting}: planning gives sizes to laws"
    return log(arm.x)


def _sizes(
    family: Sequence[Arm], have: Seeds, log: Callable[[float], float]
) -> tuple[Floats, list[int]]:
    """List the sizes that have seeds, and how many."""
    ran = [arm for arm in family if have.get(arm.setting)]
    return np.array([_log(arm, log) for arm in ran]), [len(have[arm.setting]) for arm in ran]


# The choice


Runs = Mapping[str, tuple[int, ...]]
"""Setting -> seeds to be run."""


def choose(
    goals: Sequence[Goal],
    have: Seeds,
    spare: Mapping[str, Sequence[int]],
    hours: Callable[[Seeds], float],
    budget: float,
) -> list[Step]:
    """Choose runs one after the other, each time what gains most per hour and still fits.

    This is greedy: two steps that pay only together are missed, unless they are one step here.

    Args:
        goals: what is wanted; gains of all of them add up.
        have: seeds that have run.
        spare: setting -> seeds that it may get, in this order.
        hours: of all runs that are new, together: they may share stages.
        budget: hours in all.
    """
    steps: list[Step] = []
    start, spent = dict(have), 0.0
    left = {setting: list(seeds) for setting, seeds in spare.items()}
    now, before = start, tuple(goal.state(start) for goal in goals)
    while True:
        best, best_rate = None, 0.0
        for runs in _offers(goals, now, left):
            after_seeds = _with(now, runs)
            # A stage that is complete costs nothing; its gain is then taken first.
            cost = max(hours(_new(after_seeds, start)) - spent, 1e-9)
            if spent + cost > budget:
                continue
            step = Step(runs, cost, before, tuple(goal.state(after_seeds) for goal in goals))
            gain = sum(step.gains(goals))
            if gain >= LEAST_GAIN and gain / cost > best_rate:
                best, best_rate = step, gain / cost
        if best is None:
            return steps
        steps.append(best)
        now, before, spent = _with(now, best.runs), best.after, spent + best.hours
        left = {s: [x for x in v if x not in now.get(s, ())] for s, v in left.items()}


def merged(
    steps: Sequence[Step], goals: Sequence[Goal], have: Seeds, hours: Callable[[Seeds], float]
) -> list[Step]:
    """Join the steps that give seeds to the same settings, at the place of the first of them."""
    joined: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {}
    for step in steps:
        runs = joined.setdefault(tuple(step.runs), {})
        for setting, seeds in step.runs.items():
            runs[setting] = (*runs.get(setting, ()), *seeds)
    made: list[Step] = []
    now, spent = dict(have), 0.0
    before = tuple(goal.state(now) for goal in goals)
    for runs in joined.values():
        now = _with(now, runs)
        after, total = tuple(goal.state(now) for goal in goals), hours(_new(now, have))
        made.append(Step(runs, total - spent, before, after))
        before, spent = after, total
    return made


def _offers(
    goals: Sequence[Goal], have: Seeds, left: Mapping[str, Sequence[int]]
) -> Iterable[Runs]:
    """List the steps that may be next: seeds of one setting, or of all of a claim's."""
    found: dict[tuple[tuple[str, tuple[int, ...]], ...], Runs] = {}
    for goal in goals:
        for runs in _sized(goal, have, left) if goal.arms else _paired(goal, have, left):
            found[tuple(runs.items())] = runs
    return found.values()


def _sized(goal: Goal, have: Seeds, left: Mapping[str, Sequence[int]]) -> Iterable[Runs]:
    able = [arm.setting for arm in goal.arms if left.get(arm.setting)]
    # As many new sizes at once as a line needs at least: before, there is no interval at all.
    missing = 1
    if goal.narrows:
        known = sum(bool(have.get(arm.setting)) for arm in goal.arms[:-1])
        missing = max(1, FEWEST_SIZES - known)
        if missing > 1:
            able = [s for s in able if not have.get(s) and s != goal.arms[-1].setting]
    for chosen in combinations(able, missing):
        yield {setting: (left[setting][0],) for setting in chosen}


def _paired(goal: Goal, have: Seeds, left: Mapping[str, Sequence[int]]) -> Iterable[Runs]:
    settings = goal.claim.settings
    # Those that any of them lacks, and all of them have or may get.
    wanted = sorted({seed for s in settings for seed in left.get(s, ())})
    open_ = [
        x for x in wanted if all(x in have.get(s, ()) or x in left.get(s, ()) for s in settings)
    ]
    for count in range(1, min(AT_ONCE, len(open_)) + 1):
        new = {s: tuple(x for x in open_[:count] if x not in have.get(s, ())) for s in settings}
        yield {setting: seeds for setting, seeds in new.items() if seeds}


def _with(have: Seeds, runs: Runs) -> dict[str, frozenset[int]]:
    return {**have, **{s: have.get(s, frozenset()) | set(seeds) for s, seeds in runs.items()}}


def _new(have: Seeds, start: Seeds) -> Seeds:
    return {s: seeds - start.get(s, frozenset()) for s, seeds in have.items()}
