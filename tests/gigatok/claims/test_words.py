"""Sentences about claims: verdict, effect in the metric's own direction, and what would decide."""

from __future__ import annotations

import pytest

from gigatok.claims.claim import Arm, Claim, Kind
from gigatok.claims.evidence import Results
from gigatok.claims.verdicts import verdicts
from gigatok.claims.words import JudgedClaim

NOON = 1_795_867_200.0
"""28 November 2026, 12:00 UTC."""
PAIR = (Arm(setting="S-S"), Arm(setting="S-B"))


def sentence(
    results: Results,
    kind: Kind = "difference",
    metric: str = "ar_val_loss",
    arms: tuple[Arm, ...] = PAIR,
    *,
    rises: bool = True,
    margin: float = 0.0,
    known: int = 0,
) -> str:
    claim = Claim(
        name="cure",
        text="it does",
        kind=kind,
        metric=metric,
        rises=rises,
        margin=margin,
        families=(arms,),
    )
    (verdict,) = verdicts([claim], {metric: results})
    return JudgedClaim(verdict, NOON, known).sentence


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_fall_that_was_claimed_is_negative() -> None:
    found = sentence({"S-S": seeds(3.0, 3.1, 3.2), "S-B": seeds(2.5, 2.59, 2.71)}, rises=False)
    assert found.startswith(
        "cure: supported, −0.5000 nats/token [−0.5248, −0.4752], p = 0.00013, 3 shared seeds. "
        "Claimed: it does (before any result existed, 2026-11-28 12:00 UTC)."
    )


def test_the_opposite_is_contradicted_and_shown_as_it_is() -> None:
    found = sentence({"S-S": seeds(3.0, 3.1, 3.2), "S-B": seeds(3.5, 3.61, 3.69)}, rises=False)
    assert "cure: contradicted," in found
    assert "+0.5000 nats/token" in found


def test_equal_differences_have_no_interval_and_call_for_their_number() -> None:
    found = sentence({"S-S": seeds(3.0, 3.1, 3.2), "S-B": seeds(2.5, 2.6, 2.7)}, rises=False)
    assert "cure: undecided," in found
    assert "−0.5000 nats/token without any spread, p = 0.25, 3 shared seeds." in found
    # Two-sided p of n equal differences is 2^(1 - n); six are the first below .05.
    assert "3 more seeds decide it if all do." in found


def test_what_was_known_is_said() -> None:
    found = sentence({"S-S": seeds(1, 2), "S-B": seeds(1, 2.1)}, known=3)
    assert "Claimed: it does (after 3 results were known, 2026-11-28 12:00 UTC)." in found


def test_shares_are_printed_in_their_unit() -> None:
    results = {"S-S": seeds(0.31, 0.32, 0.33), "S-B": seeds(0.312, 0.321, 0.329)}
    found = sentence(results, "equivalence", "probe_accuracy", margin=0.01)
    assert "cure: supported," in found
    assert "+0.07 points [" in found


def test_an_undecided_claim_says_how_many_seeds_decide_it() -> None:
    found = sentence({"S-S": seeds(3.0, 3.1, 3.2), "S-B": seeds(3.1, 3.16, 3.6)})
    assert "cure: undecided," in found
    # Mean .187, deviation .189 of the differences: of effects of one deviation ten pairs find 80 %
    # (Cohen, Statistical Power Analysis, 1988).
    assert "7 more seeds decide it with probability 0.8 if the effect is what it seems." in found


def test_no_effect_needs_no_advice_about_seeds() -> None:
    found = sentence({"S-S": seeds(3.0, 3.1), "S-B": seeds(3.1, 3.0)})
    assert found.endswith("No sensible number of seeds decides it if the effect is what it seems.")


def test_a_trend_is_decided_by_sizes() -> None:
    arms = tuple(Arm(setting=name, x=x) for name, x in zip("SBL", (1.0, 2.0, 4.0), strict=True))
    found = sentence(
        {"S": seeds(1.0, 1.1), "B": seeds(1.9, 2.0), "L": seeds(2.0, 2.1)}, "trend", arms=arms
    )
    assert " per doubling [" in found
    assert found.endswith("More sizes would tell more; more seeds of these hardly do.")


def test_without_results_nothing_is_said_of_them() -> None:
    assert sentence({}).startswith("cure: undecided, its settings have too few results yet.")


@pytest.mark.parametrize(("observed", "decision"), [(1.42, "supported"), (2.0, "contradicted")])
def test_a_prediction_says_by_how_much_it_is_off(observed: float, decision: str) -> None:
    sizes = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    arms = tuple(Arm(setting=str(x), x=x) for x in sizes)
    # y = 4 x^-.3, to .1 %.
    values = [4 * x**-0.3 * (1 + 0.001 * (-1) ** i) for i, x in enumerate(sizes)]
    values[-1] = observed
    results = {str(x): seeds(v) for x, v in zip(sizes, values, strict=True)}
    found = sentence(results, "prediction", arms=arms, margin=0.05)
    assert f"cure: {decision}," in found
    assert "off by +" in found
