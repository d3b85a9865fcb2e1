from __future__ import annotations

import math

import pytest
from scipy import stats

from analysis.fits import estimate, paired, student_t_975, with_standard_error


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


def test_paired_difference_uses_shared_seeds_only() -> None:
    found = paired({0: 1.0, 1: 2.0, 2: 9.0}, {0: 1.5, 1: 1.0, 7: 0.0})
    assert found is not None
    assert (found.seeds, found.differences) == ((0, 1), (0.5, -1.0))
    assert (found.rises, found.falls, found.same_sign) == (1, 1, False)
    assert (found.mean, found.spread) == (-0.25, 1.5)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_no_change_is_no_sign() -> None:
    found = paired({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0})
    assert found is not None
    assert not found.same_sign
    assert math.isclose(found.mean, 0.0)
