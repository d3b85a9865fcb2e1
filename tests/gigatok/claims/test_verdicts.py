"""Verdicts over all claims and looks: their error rates, and what power was promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gigatok.claims.claim import Arm, Claim, Looks
from gigatok.claims.evidence import Results
from gigatok.claims.looks import adjusted, threshold
from gigatok.claims.power import Aim, aim_of, foresee, more_seeds, power
from gigatok.claims.verdicts import LEVEL, Verdict, false_discovery_rates, holm, verdicts


def claim(index: int, *, rises: bool = True) -> Claim:
    arms = (Arm(setting=f"{index}-first"), Arm(setting=f"{index}-second"))
    return Claim(
        name=str(index), text="", kind="difference", metric="m", rises=rises, families=(arms,)
    )


def results(*differences: list[float]) -> Results:
    made: dict[str, dict[int, float]] = {}
    for index, values in enumerate(differences):
        made[f"{index}-first"] = dict.fromkeys(range(len(values)), 0.0)
        made[f"{index}-second"] = dict(enumerate(values))
    return made


def judge(
    *differences: list[float], looks: Looks | None = None, rises: bool = True
) -> list[Verdict]:
    claims = [claim(index, rises=rises) for index in range(len(differences))]
    return verdicts(claims, {"m": results(*differences)}, looks)


CLEAR = [1.0, 1.1, 0.9]
NOISE = [1.0, -1.1, 0.2]


def test_clear_differences_are_decided_either_way() -> None:
    assert [v.decision for v in judge(CLEAR)] == ["supported"]
    assert [v.decision for v in judge(CLEAR, rises=False)] == ["contradicted"]
    (undecided,) = judge(NOISE)
    assert (undecided.decision, undecided.decided_at) == ("undecided", None)


def test_claims_without_results_are_undecided_and_count() -> None:
    alone = judge(CLEAR)[0].p
    claims = [claim(0), *(claim(index) for index in range(1, 5))]
    found = verdicts(claims, {"m": results(CLEAR)})
    assert alone is not None
    assert found[0].p == pytest.approx(5 * alone)
    assert {v.decision for v in found[1:]} == {"undecided"}
    assert found[1].p is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def test_rates_of_false_discoveries_are_scipys() -> None:
    ps = [0.01, 0.04, 0.03, 0.005, 0.5, 0.03]
    assert false_discovery_rates(ps) == pytest.approx(stats.false_discovery_control(ps))
    assert false_discovery_rates([]) == []


def test_the_threshold_is_where_the_correction_reaches_the_level() -> None:
    looks = Looks(start=2, at_most=4)
    p = threshold(0.05, looks)
    assert adjusted(p, looks) <= 0.05 < adjusted(p * 1.001, looks)


def test_one_look_is_no_correction() -> None:
    looks = Looks(start=4, at_most=4)
    assert (adjusted(0.03, looks), threshold(0.05, looks)) == (0.03, 0.05)


@pytest.mark.heavy
@pytest.mark.parametrize("looks", [Looks(start=2, at_most=5), Looks(start=3, at_most=8)])
def test_looks_keep_the_level_on_noise(looks: Looks) -> None:
    """Differences of another random sequence than the one that the correction was made with."""
    rng = np.random.default_rng(5)
    wrong = sum(
        judge(rng.normal(size=looks.at_most).tolist(), looks=looks)[0].decision != "undecided"
        for _ in range(2000)
    )
    # 5 % of 2000 is 100, with a standard deviation of 9.7.
    assert 70 < wrong < 130


def test_a_verdict_stands_whatever_comes_later() -> None:
    looks = Looks(start=3, at_most=6)
    values = [1.0, 1.01, 0.99]
    (early,) = judge(values, looks=looks)
    assert (early.decision, early.decided_at) == ("supported", 3)
    (late,) = judge([*values, -3.0, 5.0, 0.0], looks=looks)
    assert (late.decision, late.decided_at) == ("supported", 3)
    assert late.evidence is not None
    assert late.evidence.seeds == 6, "effect and interval are of all seeds"


def test_below_the_first_look_nothing_is_decided() -> None:
    (early,) = judge([1.0, 1.001], looks=Looks(start=3, at_most=6))
    assert (early.decision, early.p) == ("undecided", None)


@pytest.mark.heavy
def test_power_is_what_simulations_find() -> None:
    rng = np.random.default_rng(6)
    found = sum(
        judge((rng.normal(size=5) + 1.5).tolist())[0].decision == "supported" for _ in range(2000)
    )
    assert found / 2000 == pytest.approx(power(1.5, 1.0, 5), abs=0.03)


def test_power_at_one_end_is_that_of_the_noncentral_t() -> None:
    for seeds in (2, 3, 8):
        bound, shift = stats.t.ppf(0.975, seeds - 1), 0.7 / 1.3 * np.sqrt(seeds)
        exact = 1 - stats.nct.cdf(bound, seeds - 1, shift)
        assert power(0.7, 1.3, seeds) == pytest.approx(exact, abs=1e-3)


def test_both_ends_of_an_equivalence_count() -> None:
    rng = np.random.default_rng(8)
    same = claim(0).model_copy(update={"kind": "equivalence", "margin": 2.0})
    inside = aim_of(same, 0.1)
    assert inside == Aim(-2.0, 2.0)
    found = sum(
        verdicts([same], {"m": results((0.1 + rng.normal(size=4)).tolist())})[0].decision
        == "supported"
        for _ in range(1000)
    )
    assert found / 1000 == pytest.approx(power(0.1, 1.0, 4, aim=inside), abs=0.045)
    # One end alone would be found far more often.
    assert power(0.1, 1.0, 4, aim=inside) < power(1.9, 1.0, 4) - 0.05


def test_the_course_of_looks_is_what_simulations_find() -> None:
    rng = np.random.default_rng(7)
    looks = Looks(start=3, at_most=6)
    left = [(rng.normal(size=6) + 1.5).tolist() for _ in range(600)]
    course = foresee(1.5, 1.0, looks)
    for seeds, undecided in zip(range(3, 7), course.undecided, strict=True):
        left = [v for v in left if judge(v[:seeds], looks=looks)[0].decision == "undecided"]
        # Three standard errors.
        assert len(left) / 600 == pytest.approx(undecided, abs=0.06)
    assert course.seeds == 3 + sum(course.undecided[:3])
    assert [course.reaches(n) for n in (2, 3, 7)] == [1, 1, 0]
    assert course.reaches(4) == course.undecided[0]


def test_one_look_is_foreseen_as_no_look() -> None:
    course = foresee(1.5, 1.0, Looks(start=5, at_most=5))
    assert (course.seeds, 1 - course.undecided[0]) == (
        5,
        pytest.approx(power(1.5, 1, 5), abs=0.01),
    )


def test_a_trend_is_looked_at_once() -> None:
    """Seeds do not decide it; more of them, for other claims, are no second chance."""
    arms = tuple(Arm(setting=str(x), x=x) for x in (1.0, 2.0, 4.0, 8.0))
    trend = Claim(name="t", text="", kind="trend", metric="m", families=(arms,))
    start = {str(x): {0: y, 1: y} for x, y in zip((1.0, 2.0, 4.0, 8.0), (1, 3, 2, 4), strict=True)}
    later = {s: values | {2: 100 * float(s)} for s, values in start.items()}
    looks = Looks(start=2, at_most=5)
    (first,) = verdicts([trend], {"m": start}, looks)
    (then,) = verdicts([trend], {"m": later}, looks)
    assert first.p == then.p == verdicts([trend], {"m": start})[0].p
    assert first.level == LEVEL


def test_more_seeds_are_the_fewest_that_suffice() -> None:
    more = more_seeds(0.8, 1.0, 3)
    assert more is not None
    assert power(0.8, 1.0, 3 + more) >= 0.8 > power(0.8, 1.0, 2 + more)
    assert more_seeds(0.0, 1.0, 3) is None
    assert more_seeds(1e-6, 1.0, 3) is None, "thousands of seeds are no advice"


def test_the_level_of_the_next_claim_is_holms_step() -> None:
    found = judge(CLEAR, NOISE, NOISE)
    assert [v.decision for v in found] == ["supported", "undecided", "undecided"]
    assert found[1].level == pytest.approx(LEVEL / 2)
