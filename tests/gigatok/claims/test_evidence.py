"""Evidence for each kind of claim, against scipy's tests of the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from gigatok.claims.claim import Arm, Claim, Kind
from gigatok.claims.evidence import Results, weigh


def claim(
    kind: Kind, *families: tuple[Arm, ...], rises: bool = True, margin: float = 0.0
) -> Claim:
    return Claim(
        name="c", text="", kind=kind, metric="psnr", rises=rises, margin=margin, families=families
    )


PAIR = (Arm(setting="S"), Arm(setting="L"))
SIZES = tuple(Arm(setting=name, x=x) for name, x in zip("SBLX", (1.0, 2.0, 4.0, 8.0), strict=True))
RESULTS: Results = {
    "S": {0: 20.1, 1: 20.3, 2: 19.8, 3: 20.0},
    "B": {0: 20.9, 1: 21.0, 2: 20.4, 3: 20.7},
    "L": {0: 21.2, 1: 21.9, 2: 21.3, 3: 21.2},
    "X": {0: 22.0, 1: 22.2, 2: 21.8, 3: 22.1},
}


def column(setting: str, results: Results = RESULTS) -> list[float]:
    return list(results[setting].values())


def test_a_difference_is_the_paired_t_test() -> None:
    found = weigh(claim("difference", PAIR), RESULTS)
    assert found is not None
    peer = stats.ttest_rel(column("L"), column("S"))
    assert found.p == pytest.approx(peer.pvalue)
    assert found.effect == pytest.approx(np.mean(column("L")) - np.mean(column("S")))
    assert found.interval(0.05) == pytest.approx(tuple(peer.confidence_interval()))
    assert (found.seeds, found.freedom) == (4, 3)


def test_a_claim_the_wrong_way_round_has_the_opposite_evidence() -> None:
    up = weigh(claim("difference", PAIR), RESULTS)
    down = weigh(claim("difference", PAIR, rises=False), RESULTS)
    assert up is not None
    assert down is not None
    assert (down.effect, down.p_for) == (-up.effect, pytest.approx(up.p_against))


def test_a_least_difference_moves_the_hypothesis() -> None:
    found = weigh(claim("difference", PAIR, margin=1.0), RESULTS)
    assert found is not None
    differences = np.subtract(column("L"), column("S"))
    peer = stats.ttest_1samp(differences, 1.0, alternative="greater")
    assert found.p_for == pytest.approx(peer.pvalue)


def test_seeds_that_only_one_setting_has_are_left_out() -> None:
    more = {**RESULTS, "S": {**RESULTS["S"], 9: 40.0}}
    assert weigh(claim("difference", PAIR), more) == weigh(claim("difference", PAIR), RESULTS)


def test_families_are_averaged_seed_by_seed() -> None:
    found = weigh(claim("difference", SIZES[:2], SIZES[2:]), RESULTS)
    assert found is not None
    first, second = (np.subtract(column(b), column(a)) for a, b in ("SB", "LX"))
    peer = stats.ttest_1samp((first + second) / 2, 0)
    assert found.p == pytest.approx(peer.pvalue)


def test_an_equivalence_is_two_one_sided_tests() -> None:
    differences = np.subtract(column("X"), column("L"))
    pair = (Arm(setting="L"), Arm(setting="X"))
    found = weigh(claim("equivalence", pair, margin=1.5), RESULTS)
    assert found is not None
    below = stats.ttest_1samp(differences, 1.5, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -1.5, alternative="greater").pvalue
    assert found.p_for == pytest.approx(max(below, above))
    assert found.p_for < 0.05
    apart = weigh(claim("equivalence", pair, margin=0.01), RESULTS)
    assert apart is not None
    assert apart.p_against < 0.05 < apart.p_for


def test_an_order_is_as_sure_as_its_least_sure_step() -> None:
    found = weigh(claim("order", SIZES), RESULTS)
    assert found is not None
    steps = [
        stats.ttest_rel(column(b), column(a), alternative="greater").pvalue
        for a, b in ("SB", "BL", "LX")
    ]
    assert found.p_for == pytest.approx(max(steps))
    turned = weigh(claim("order", tuple(reversed(SIZES))), RESULTS)
    assert turned is not None
    assert turned.p_against == pytest.approx(3 * min(steps))


def test_a_trend_is_the_regression_of_means() -> None:
    found = weigh(claim("trend", SIZES), RESULTS)
    assert found is not None
    peer = stats.linregress([0, 1, 2, 3], [np.mean(column(s)) for s in "SBLX"])
    assert (found.effect, found.error) == pytest.approx((peer.slope, peer.stderr))
    assert found.p == pytest.approx(peer.pvalue)
    assert found.freedom == 2, "sizes repeat, seeds of a size do not"


def test_a_prediction_is_the_power_law_through_the_smaller_sizes() -> None:
    x, y = np.array([1.0, 2.0, 4.0, 8.0]), np.array([4.0, 3.1, 2.2, 1.6])
    results = {arm.setting: {0: v} for arm, v in zip(SIZES, y.tolist(), strict=True)}
    found = weigh(claim("prediction", SIZES, margin=0.05), results)
    assert found is not None
    line = stats.linregress(np.log(x[:3]), np.log(y[:3]))
    predicted = line.intercept + line.slope * math.log(8)
    assert found.effect == pytest.approx(math.log(1.6) - predicted)
    # The textbook's standard error of a new observation.
    residual = np.log(y[:3]) - line.intercept - line.slope * np.log(x[:3])
    spread = ((np.log(x[:3]) - np.log(2)) ** 2).sum()
    error = math.sqrt((residual**2).sum()) * math.sqrt(1 + 1 / 3 + math.log(4) ** 2 / spread)
    assert found.error == pytest.approx(error)


COARSE: Results = {
    # Shares of few images, in steps of .01; differences of floats are not all .01 to the last bit.
    "S": {0: 0.50, 1: 0.52, 2: 0.57, 3: 0.53},
    "L": {0: 0.51, 1: 0.53, 2: 0.58, 3: 0.54},
}


def test_equal_differences_are_as_sure_as_their_signs() -> None:
    found = weigh(claim("difference", PAIR), COARSE)
    assert found is not None
    signs = stats.permutation_test(
        (column("L", COARSE), column("S", COARSE)),
        lambda a, b: np.mean(a) - np.mean(b),
        permutation_type="samples",
        alternative="greater",
    )
    assert (found.p_for, found.p_against) == (signs.pvalue, 1.0) == (1 / 16, 1.0)
    assert found.error == 0


def test_equal_results_are_no_evidence_of_a_difference_and_some_of_none() -> None:
    same: Results = {"S": COARSE["S"], "L": COARSE["S"]}
    found = weigh(claim("difference", PAIR), same)
    assert found is not None
    assert (found.effect, found.p) == (0.0, 1.0)
    within = weigh(claim("equivalence", PAIR, margin=0.01), same)
    assert within is not None
    assert (within.p_for, within.p_against) == (1 / 16, 1.0)


@pytest.mark.parametrize("margin", [0.006, 0.01, 0.014])
def test_a_margin_within_half_a_step_is_on_neither_side(margin: float) -> None:
    found = weigh(claim("difference", PAIR, margin=margin), COARSE)
    assert found is not None
    assert (found.p_for, found.p_against) == (1.0, 1.0)


def test_rounding_of_an_average_is_no_difference() -> None:
    """One family gains what the other loses: what is left is rounding."""
    results: Results = {
        "S": {0: 0.30, 1: 0.10},
        "B": {0: 0.31, 1: 0.13},
        "L": {0: 0.52, 1: 0.77},
        "X": {0: 0.51, 1: 0.74},
    }
    found = weigh(claim("difference", SIZES[:2], SIZES[2:]), results)
    assert found is not None
    assert (found.effect, found.error, found.p) == (0.0, 0.0, 1.0)


def test_sizes_on_a_line_are_as_sure_as_their_order() -> None:
    results: Results = {s: {0: 0.1 * i, 1: 0.1 * i} for i, s in enumerate("SBLX", 1)}
    found = weigh(claim("trend", SIZES), results)
    assert found is not None
    assert (found.p_for, found.p_against) == (pytest.approx(1 / 24), 1.0)
    two = weigh(claim("trend", SIZES[:3], SIZES[1:]), results)
    assert two is not None
    assert two.p_for == pytest.approx(1 / 36)


def test_a_size_on_an_exact_law_is_one_of_all_sizes() -> None:
    level: Results = {setting: {0: 0.1} for setting in "SBLX"}
    found = weigh(claim("prediction", SIZES, margin=0.05), level)
    assert found is not None
    assert (found.effect, found.p_for) == (0.0, 1 / 4)


def test_a_law_through_scores_in_steps_is_no_surer_than_their_rounding() -> None:
    """Means that lie on it nearly do so because scores of .30 and .31 are all there are."""
    smaller: Results = {"S": {0: 0.30, 1: 0.30}, "B": {0: 0.30, 1: 0.31}, "L": {0: 0.31, 1: 0.31}}
    of_two_seeds = 0.01 / math.sqrt(12 * 2)
    found = weigh(claim("prediction", SIZES, margin=0.001), {**smaller, "X": {0: 0.33, 1: 0.33}})
    assert found is not None
    assert found.error > of_two_seeds / 0.33
    assert found.p > 0.05
    # Numbers that are no multiples of a step are not rounded.
    free: Results = {**smaller, "X": {0: 0.33, 1: 0.3304321}}
    unrounded = weigh(claim("prediction", SIZES, margin=0.001), free)
    assert unrounded is not None
    assert unrounded.error < found.error


def test_too_few_results_are_no_evidence() -> None:
    one: Results = {"S": {0: 1.0}, "L": {0: 2.0}}
    assert weigh(claim("difference", PAIR), one) is None
    assert weigh(claim("difference", PAIR), {"S": {0: 1.0, 1: 1.0}}) is None
    assert weigh(claim("trend", SIZES), {**RESULTS, "X": {}}) is None


@pytest.mark.parametrize(("kind", "fewest"), [("trend", 3), ("prediction", 4), ("difference", 2)])
def test_claims_about_too_few_settings_are_refused(kind: Kind, fewest: int) -> None:
    with pytest.raises(ValidationError, match=f"a {kind} needs {fewest} settings"):
        claim(kind, SIZES[: fewest - 1])
