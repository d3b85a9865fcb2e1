"""Choice of the next runs: known answers where the best one can be computed by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from gigatok.claims.claim import Arm, Claim, Kind
from gigatok.claims.design import (
    UNKNOWN,
    Noise,
    Seeds,
    choose,
    estimate_noise,
    half_width,
    merged,
    noise_of,
    predict,
    prediction_goal,
    seeds_goal,
    slope_error,
    trend_goal,
)
from gigatok.claims.evidence import Evidence, Results, weigh
from gigatok.claims.power import power

SIZES = {"a": 1.0, "b": math.e, "c": math.e**2, "top": math.e**3}
COSTS = {"a": 1.0, "b": 1.0, "c": 8.0, "top": 64.0}
SEEDS_ALONE = Noise(0.0, 1.0)


def claim(kind: Kind, sizes: Mapping[str, float | None] = SIZES) -> Claim:
    arms = tuple(Arm(setting=name, x=x) for name, x in sizes.items())
    return Claim(name="c", text="", kind=kind, metric="psnr", families=(arms,))


def seeds(**counts: int) -> Seeds:
    return {setting: frozenset(range(count)) for setting, count in counts.items()}


def hours(new: Seeds) -> float:
    return sum(COSTS[setting] * len(found) for setting, found in new.items())


def test_a_width_is_that_of_the_interval_that_claims_report() -> None:
    rng = np.random.default_rng(0)
    results: Results = {
        name: dict(enumerate(np.exp(-0.2 * math.log(x) + 0.1 * rng.normal(size=3)).tolist()))
        for name, x in {**SIZES, "d": 7.0}.items()
    }
    law = claim("prediction", dict(sorted({**SIZES, "d": 7.0}.items(), key=lambda kv: kv[1])))
    seen = weigh(law, results)
    assert seen is not None
    *smaller, _ = law.families[0]
    x = np.log([arm.x for arm in smaller])
    y = [np.log(np.mean(list(results[arm.setting].values()))) for arm in smaller]
    left = y - np.polyval(np.polyfit(x, y, 1), x)
    # What remains around the line, all of it between sizes.
    noise = Noise(float(left @ left) / 2, 0.0)
    width = prediction_goal(law, noise, 3).state(seeds(a=3, b=3, c=3, d=3, top=3))
    low, high = seen.interval(0.05)
    assert width == pytest.approx((high - low) / 2)


def test_the_variance_of_a_prediction_is_that_of_linear_models() -> None:
    x, counts, noise = np.array([0.0, 1.0, 2.5, 3.0]), [1, 4, 2, 3], Noise(0.3, 0.6)
    rows = np.stack([np.ones(4), x], 1)
    hat = np.array([1.0, 5.0]) @ np.linalg.inv(rows.T @ rows) @ rows.T
    variance = noise.of_mean(2) + sum(
        w**2 * noise.of_mean(n) for w, n in zip(hat, counts, strict=True)
    )
    expected = stats.t.ppf(0.975, 2) * math.sqrt(variance)
    assert half_width(x, counts, 5.0, 2, noise) == pytest.approx(expected)
    assert half_width(x[:2], counts[:2], 5.0, 2, noise) == math.inf
    slope, freedom = slope_error([(x, counts)], noise)
    weights = np.linalg.inv(rows.T @ rows) @ rows.T
    assert freedom == 2
    assert slope == pytest.approx(
        math.sqrt(sum(w**2 * noise.of_mean(n) for w, n in zip(weights[1], counts, strict=True)))
    )


def test_the_best_run_is_the_one_that_removes_most_variance_per_hour() -> None:
    # Sizes at 0, 1 and 2 predict 3 with the weights -2/3, 1/3 and 4/3. A second seed removes
    # half of w²: 2/9 at 1 hour, 1/18 at 1 hour and 8/9 at 8 hours, which is 1/9 per hour.
    goal = prediction_goal(claim("prediction"), SEEDS_ALONE, 1)
    spare = {"a": [1], "b": [1], "c": [1]}
    first, *_ = choose([goal], seeds(a=1, b=1, c=1), spare, hours, 100.0)
    assert first.runs == {"a": (1,)}
    before, after = 1 + 21 / 9, 1 + 21 / 9 - 2 / 9
    assert first.gains([goal]) == pytest.approx([1 - after / before])
    # At equal cost it is the largest.
    cheap, *_ = choose([goal], seeds(a=1, b=1, c=1), spare, lambda new: len(new["c"]) + hours(
        {**new, "c": frozenset()}), 100.0)  # fmt: skip
    assert cheap.runs == {"c": (1,)}


def test_what_does_not_fit_the_budget_is_not_chosen() -> None:
    goal = prediction_goal(claim("prediction"), SEEDS_ALONE, 1)
    spare = {"a": [1], "b": [1], "c": [1]}
    found = choose([goal], seeds(a=1, b=1, c=1), spare, hours, 2.5)
    assert [list(step.runs) for step in found] == [["a"], ["b"]]
    assert choose([goal], seeds(a=1, b=1, c=1), spare, hours, 0.5) == []


def test_from_nothing_the_first_step_is_as_many_sizes_as_a_line_needs() -> None:
    goal = prediction_goal(claim("prediction"), UNKNOWN, 1)
    first, second = choose([goal], {}, {"a": [0, 1], "b": [0], "c": [0]}, hours, 100.0)
    assert first.runs == {"a": (0,), "b": (0,), "c": (0,)}
    assert (first.before, first.hours) == ((math.inf,), 10.0)
    assert second.runs == {"a": (1,)}


def test_a_size_that_misfits_wants_other_sizes_and_not_more_seeds() -> None:
    sizes = {"a": 1.0, "b": math.e, "between": math.e**1.5, "c": math.e**2, "top": math.e**3}
    spare = {"a": [1], "b": [1], "between": [0], "c": [1]}
    goal = prediction_goal(claim("prediction", sizes), Noise(1.0, 0.0), 1)
    found = choose([goal], seeds(a=1, b=1, c=1), spare, len, 100.0)
    assert [step.runs for step in found] == [{"between": (0,)}]


def test_seeds_of_a_comparison_come_together() -> None:
    pair = claim("difference", {"a": None, "b": None})
    seen = Evidence(0.5, 0.2, 2, 3, 0.1, 0.9)
    goal = seeds_goal(pair, seen, 0.05)
    assert goal.state(seeds(a=4, b=3)) == power(0.5, 0.2 * math.sqrt(3), 3)
    first, *_ = choose([goal], seeds(a=4, b=3), {"a": [4], "b": [3, 4]}, hours, 100.0)
    # One of them has the fourth seed already.
    assert first.runs == {"b": (3,)}
    assert first.after == (power(0.5, 0.2 * math.sqrt(3), 4),)
    # What seems to go the other way is decided against the claim.
    against = seeds_goal(pair, Evidence(-0.5, 0.2, 2, 3, 0.9, 0.1), 0.05)
    assert against.state(seeds(a=4, b=4)) == pytest.approx(goal.state(seeds(a=4, b=4)))
    # A pair needs the seeds of both.
    assert not choose([goal], seeds(a=3, b=3), {"a": [], "b": [3]}, hours, 100.0)


def test_a_trend_profits_from_far_sizes() -> None:
    sizes = {"a": 1.0, "b": 2.0, "c": 4.0, "near": 5.0, "far": 32.0}
    goal = trend_goal(claim("trend", sizes), Noise(0.05, 0.05), 0.2, 0.05)
    have = seeds(a=1, b=1, c=1)
    first, *_ = choose([goal], have, {"near": [0], "far": [0]}, lambda new: 1.0, 1.0)
    assert first.runs == {"far": (0,)}
    assert 0 < goal.state(have) < first.after[0] < 1
    assert goal.state(seeds(a=1, b=1)) == 0.0


def test_steps_for_the_same_settings_are_joined() -> None:
    goal = prediction_goal(claim("prediction"), SEEDS_ALONE, 1)
    have, spare = seeds(a=1, b=1, c=1), {"a": [1, 2, 3], "b": [1, 2], "c": [1, 2]}
    steps = choose([goal], have, spare, hours, 40.0)
    joined = merged(steps, [goal], have, hours)
    assert len(joined) == 3 < len(steps)
    assert joined[0].runs == {"a": (1, 2, 3)}
    assert joined[-1].after == pytest.approx(steps[-1].after)
    assert sum(s.hours for s in joined) == pytest.approx(sum(s.hours for s in steps))


def test_noise_is_split_between_sizes_and_seeds() -> None:
    # On the line but for ±.3 around it in the middle two; seeds differ by ±.1.
    x = [0.0, 1.0, 2.0, 3.0]
    middles = [0.0, 1.3, 1.7, 3.0]
    values = [[m - 0.1, m + 0.1] for m in middles]
    left = np.array(middles) - np.polyval(np.polyfit(x, middles, 1), x)
    noise = estimate_noise(x, values)
    assert noise is not None
    assert noise.seeds == pytest.approx(0.02)
    # Two degrees of freedom say so, and one more that sizes differ as seeds do.
    assert noise.sizes == pytest.approx((left @ left - 2 * 0.02 / 2 + 0.02) / 3)
    single = estimate_noise(x, [[m] for m in middles])
    assert single is not None
    assert (single.sizes, single.seeds) == pytest.approx([left @ left / 2 / 2] * 2)
    assert estimate_noise([0.0], [[1.0, 2.0]]) == Noise(0.5, 0.5)
    assert estimate_noise([0.0, 1.0], [[1.0], [2.0]]) is None
    assert estimate_noise([0.0, 1.0, 2.0], [[0.1, 0.1]] * 3) is None, "equal scores show none"


def test_noise_of_planted_laws_is_found() -> None:
    rng = np.random.default_rng(1)
    sizes = {str(n): 2.0**n for n in range(8)}
    found = []
    for _ in range(300):
        results = {
            name: dict(enumerate(np.exp(rng.normal() * 0.1 + 0.05 * rng.normal(size=3)).tolist()))
            for name in sizes
        }
        noise = noise_of(claim("prediction", sizes).families, results, math.log, math.log)
        assert noise is not None
        found.append((noise.sizes, noise.seeds))
    # Of sizes, a seventh of the weight says that it is the variance of seeds.
    expected = (6 * 0.01 + 0.0025) / 7, 0.0025
    assert np.mean(found, 0) == pytest.approx(expected, rel=0.05)


def test_the_largest_is_predicted_by_the_law_through_the_others() -> None:
    results = {name: {0: 3 * x**-0.5} for name, x in SIZES.items() if name != "top"}
    assert predict(claim("prediction"), results) == pytest.approx(3 * SIZES["top"] ** -0.5)
    assert predict(claim("prediction"), {"a": {0: 1.0}, "b": {0: 1.0}}) is None
