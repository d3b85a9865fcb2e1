"""Verdicts on all claims of a sweep: at most one false one in twenty studies, over all claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gigatok.claims.claim import Claim, Looks
from gigatok.claims.evidence import Evidence, Results, shared_seeds, weigh
from gigatok.claims.looks import adjusted, threshold

LEVEL = 0.05
"""Share of studies with any false verdict, if none of their claims were true or false by more
than its margin."""
Decision = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """Judgement of a claim by the results, beside all other claims.

    Attributes:
        evidence: of all results so far; None where they are too few for its test.
        decided_at: seeds at the look that decided it; None where it is undecided.
        p: two-sided, corrected for the looks and for the number of claims; None without evidence.
        level: level of one look at which the next claim is decided, given those that are.
    """

    claim: Claim
    decision: Decision
    evidence: Evidence | None
    decided_at: int | None
    p: float | None
    level: float


def verdicts(
    claims: Sequence[Claim], results: Mapping[str, Results], looks: Looks | None = None
) -> list[Verdict]:
    """Judge claims, in their order.

    Args:
        claims: all of a sweep: the correction is for their number, also of those without results.
        results: metric -> setting -> seed -> value.
        looks: numbers of seeds at which was or will be looked; None: once, at all there are.
    """
    times = [_looks_at(claim, looks) for claim in claims]
    found = [
        _clearest(claim, results.get(claim.metric, {}), mine)
        for claim, mine in zip(claims, times, strict=True)
    ]
    single = [1.0 if evidence is None else evidence.p for evidence in found]
    corrected = holm(
        [p if mine is None else adjusted(p, mine) for p, mine in zip(single, times, strict=True)]
    )
    decided = sum(p <= LEVEL for p in corrected)
    # The step of Holm's at which the next claim stands.
    step = LEVEL / max(1, len(claims) - decided)
    return [
        _verdict(
            claim,
            results.get(claim.metric, {}),
            evidence,
            p,
            step if mine is None else threshold(step, mine),
        )
        for claim, evidence, p, mine in zip(claims, found, corrected, times, strict=True)
    ]


def _looks_at(claim: Claim, looks: Looks | None) -> Looks | None:
    """Choose the looks at a claim: one, at the start, where seeds do not decide it.

    The correction for looks is that of paired seeds. Means over seeds of the sizes of a trend
    are another sequence: corrected like this, 6.4 % of noise was a trend after eight seeds.
    """
    if looks is None or claim.decided_by_seeds:
        return looks
    return Looks(start=looks.start, at_most=looks.start)


def _clearest(claim: Claim, results: Results, looks: Looks | None) -> Evidence | None:
    """Weigh a claim at each look that its seeds allow, and return the clearest evidence.

    A verdict stands from the look that gave it: seeds that other claims add to its settings
    later do not take it back. The correction for looks is for exactly this choice.
    """
    if looks is None:
        return weigh(claim, results)
    seeds = shared_seeds(claim, results)
    last = min(len(seeds), looks.at_most)
    found = (weigh(claim, _only(results, seeds[:n])) for n in range(looks.start, last + 1))
    return min((e for e in found if e is not None), key=lambda e: e.p, default=None)


def _only(results: Results, seeds: Sequence[int]) -> Results:
    return {
        setting: {seed: values[seed] for seed in seeds if seed in values}
        for setting, values in results.items()
    }


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, Scandinavian Journal of Statistics 6(2), 1979)."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, largest = [1.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        # A p that is larger cannot become smaller than one before it.
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected


def false_discovery_rates(ps: Sequence[float]) -> list[float]:
    """Turn p-values into q: the share of chance among all that are as clear or clearer.

    Benjamini and Hochberg, Journal of the Royal Statistical Society B 57(1), 1995.
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    rates, smallest = [1.0] * len(ps), 1.0
    # From the largest down: a clearer one cannot have a larger share.
    for rank, index in reversed(list(enumerate(order, start=1))):
        smallest = min(smallest, len(ps) / rank * ps[index])
        rates[index] = smallest
    return rates


def _verdict(
    claim: Claim, results: Results, clearest: Evidence | None, p: float, level: float
) -> Verdict:
    evidence = weigh(claim, results)
    if clearest is None:
        return Verdict(claim, "undecided", evidence, None, None, level)
    if p > LEVEL:
        return Verdict(claim, "undecided", evidence, None, p, level)
    decision: Decision = "supported"
    if clearest.p_against < clearest.p_for:
        decision = "contradicted"
    return Verdict(claim, decision, evidence, clearest.seeds, p, level)
