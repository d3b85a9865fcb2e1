from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.estimates import (
    estimate,
    paired,
    paired_test,
    sign_flip_p,
    spearman,
    student_t_975,
    with_standard_error,
)


@pytest.mark.parametrize("freedom", [1, 2, 5, 6, 7, 10, 30, 200])
def test_student_t_quantile(freedom: int) -> None:
    assert student_t_975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_confidence_interval_is_that_of_scipy() -> None:
    values = [3.9, 4.1, 4.4, 4.0]
    found = estimate(values, "student_t")
    low, high = stats.t.interval(0.95, 3, sum(values) / 4, stats.sem(values))
    assert (found.mean, found.n, found.interval) == (pytest.approx(4.1), 4, "student_t")
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))


def test_few_seeds_never_get_a_confidence_interval() -> None:
    two = estimate([1.0, 3.0], "student_t")
    assert (two.interval, two.low, two.high) == ("half_range", 1.0, 3.0)
    one = estimate([2.0], "student_t")
    assert (one.interval, one.half_width, one.n) == ("none", 0.0, 1)
    known = with_standard_error(5.0, 0.5)
    assert (known.interval, known.low, known.high) == ("standard_error", 4.5, 5.5)


@pytest.mark.parametrize(
    "values", [[0.97, 0.99, 1.0], [0.0, 0.01, 0.06], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
)
def test_intervals_of_shares_stay_within_0_and_1(values: list[float]) -> None:
    for kind in ("student_t", "half_range"):
        found = estimate(values, kind, share=True)
        assert 0 <= found.low <= found.mean <= found.high <= 1
        # Not cut: a limit of exactly 1 would claim what three seeds cannot show.
        assert kind == "half_range" or (found.high < 1) == (values != [1.0] * 3)


def test_the_interval_of_a_share_far_from_its_ends_is_the_usual_one() -> None:
    values = [0.361, 0.364, 0.358, 0.366]
    plain, share = (estimate(values, "student_t", share=s) for s in (False, True))
    assert (share.low, share.high) == pytest.approx((plain.low, plain.high), abs=1e-4)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_a_share_near_1_covers_it(seeds: int) -> None:
    """The accuracy of a model varies over seeds, and is measured on 500 images."""
    random = np.random.default_rng(0)
    own = stats.beta.rvs(0.97 * 300, 0.03 * 300, size=(2000, seeds), random_state=random)
    found = [estimate(v, "student_t", share=True) for v in random.binomial(500, own) / 500]
    covered = np.mean([e.low <= 0.97 <= e.high for e in found])
    assert 0.93 < covered < 0.98


def test_what_is_no_share_after_all_is_shown_as_it_is() -> None:
    found = estimate([20.0, 40.0, 60.0], "student_t", share=True)
    assert found == estimate([20.0, 40.0, 60.0], "student_t")


def test_paired_difference_uses_shared_seeds_only() -> None:
    found = paired({0: 1.0, 1: 2.0, 2: 9.0}, {0: 1.5, 1: 1.0, 7: 0.0})
    assert found is not None
    assert (found.seeds, found.differences) == ((0, 1), (0.5, -1.0))
    assert (found.mean, found.same_sign) == (-0.25, False)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_no_change_is_no_sign() -> None:
    found = paired({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0})
    assert found is not None
    assert not found.same_sign
    assert math.isclose(found.mean, 0.0)


def test_sign_flips_of_four_seeds_by_hand() -> None:
    """Count sign patterns: of 16 only + + + + and - - - - differ as much."""
    assert sign_flip_p([1.0, 2.0, 3.0, 0.5]) == 2 / 16
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([0.1, 0.2, 0.3, 0.1, 0.2, 0.3]) == 2 / 64, "5 % needs six seeds"


def test_paired_test_has_effect_interval_and_its_own_limit() -> None:
    difference = paired({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 4.0, 2: 6.0})
    assert difference is not None
    found = paired_test(difference)
    assert found.estimate.interval == "student_t"
    assert found.effect == pytest.approx(2.0 * (1 - 3 / 7))
    assert (found.p, found.smallest_p) == (0.25, 0.25)
    one = paired({0: 1.0}, {0: 2.0})
    assert one is not None
    assert (paired_test(one).effect, paired_test(one).p) == (None, 1.0)


@pytest.mark.parametrize("noise", ["normal", "skewed"])
def test_false_positives_of_the_paired_test(noise: str) -> None:
    """Both settings alike, eight seeds: 5 % of tests may say otherwise, no more."""
    rng = np.random.default_rng(0)
    draw = rng.normal if noise == "normal" else rng.exponential
    trials = 2000
    positives = sum(sign_flip_p(draw(size=8) - draw(size=8)) <= 0.05 for _ in range(trials))
    expected = 12 / 256
    margin = 3 * math.sqrt(expected * (1 - expected) / trials)
    assert expected - margin < positives / trials < expected + margin


def test_paired_test_finds_a_difference_that_is_there() -> None:
    rng = np.random.default_rng(1)
    found = sum(sign_flip_p(rng.normal(1.5, 1.0, 8)) <= 0.05 for _ in range(200))
    assert found > 180


@pytest.mark.parametrize("n", [5, 12, 40])
def test_rank_correlation_is_that_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=n).round(1)
    y = (x + rng.normal(size=n)).round(1)
    found = spearman(list(x), list(y))
    assert found is not None
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low < found.rho < found.high <= 1


def test_exact_p_of_a_perfect_order_by_hand() -> None:
    found = spearman([1, 2, 3, 4], [10, 20, 30, 40])
    assert found is not None
    assert (found.rho, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.p == pytest.approx(2 / 24), "only this order and its reverse"
    assert found.low is not None
    assert found.low < 0, "four points prove nothing"


def test_no_correlation_of_too_few_or_constant_values() -> None:
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    three = spearman([1, 2, 3], [1, 2, 3])
    assert three is not None
    assert (three.low, three.n) == (None, 3)


@pytest.mark.heavy
@pytest.mark.parametrize(("n", "true"), [(6, 0.0), (10, 0.6), (30, 0.8)])
def test_rank_correlation_interval_covers_the_truth(n: int, true: float) -> None:
    """Draw bivariate normals, whose rank correlation is 6/pi asin(r/2)."""
    rng = np.random.default_rng(2)
    rank = 6 / math.pi * math.asin(true / 2)
    hits, trials = 0, 300
    for _ in range(trials):
        x = rng.normal(size=n)
        y = true * x + math.sqrt(1 - true**2) * rng.normal(size=n)
        found = spearman(list(x), list(y))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= rank <= found.high
    assert hits / trials > 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)
