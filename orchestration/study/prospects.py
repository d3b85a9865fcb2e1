"""Prospects of a study's next runs: its undecided claims, with the noise that results show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gigatok.claims.claim import Claim
from gigatok.claims.design import (
    UNKNOWN,
    Goal,
    Noise,
    estimate_noise,
    noise_of,
    predict,
    prediction_goal,
    seeds_goal,
    trend_goal,
)
from gigatok.claims.evidence import Results, weigh
from gigatok.claims.verdicts import Verdict, verdicts
from gigatok.names import METRICS
from orchestration.launching.claim_results import Earlier, seen_before
from orchestration.sweep.definition import Sweep


@dataclass(frozen=True)
class Prospect:
    """Goal in the words of its claim.

    Attributes:
        predicted: the metric at the largest size; None: too few sizes have results.
        measured: false where nothing is known of the noise, so that widths are relative.
    """

    goal: Goal
    predicted: float | None = None
    measured: bool = True

    def text(self, state: float) -> str:
        """Write a state of the goal: half the width of an interval, or a probability."""
        if not self.goal.narrows:
            return f"{state:.2f}"
        if math.isinf(state):
            return "none"
        if not self.measured:
            return f"±{state:.2g} s.d."
        share = math.expm1(state)
        if share > 1:
            return "±>100 %"
        if self.predicted is None:
            return f"±{100 * share:.1f} %"
        metric = METRICS[self.goal.claim.metric]
        # Behind the sign, which is both here.
        return f"±{metric.signed(share * self.predicted, 1)[1:]}{metric.difference_unit}"

    def change(self, before: float, after: float) -> str:
        """Say what runs would change; empty where that is too little to be seen."""
        claim = self.goal.claim
        first, last = self.text(before), self.text(after)
        if first == last:
            return ""
        if not self.goal.narrows:
            return f"{claim.name}: decided with {first} -> {last}"
        target = claim.families[0][-1].setting
        return f"{claim.name}: {claim.metric} at {target} {first} -> {last}"


class NoProspect(Exception):
    """Reason why no run can be chosen for a claim."""


def find_prospects(
    sweep: Sweep, wider: Sweep, earlier: Sequence[Earlier]
) -> tuple[list[Prospect], list[str]]:
    """Make a prospect of each claim that is undecided.

    Args:
        sweep: as its file is.
        wider: with more sizes, in the same claims.
        earlier: results so far, then those of other launches.

    Returns:
        Prospects, and for each claim without one the reason.
    """
    (_, results), *_ = earlier
    prospects, reasons = [], []
    judged = verdicts(sweep.claims, results, sweep.looks)
    for verdict, claim in zip(judged, wider.claims, strict=True):
        try:
            prospects.append(_prospect(verdict, claim, sweep, earlier))
        except NoProspect as reason:
            reasons.append(f"{claim.name}: {reason}")
    return prospects, reasons


def _prospect(
    verdict: Verdict, claim: Claim, sweep: Sweep, earlier: Sequence[Earlier]
) -> Prospect:
    if verdict.decision != "undecided":
        raise NoProspect(f"{verdict.decision} already")
    found = [results.get(claim.metric, {}) for _, results in earlier]
    if claim.kind == "prediction":
        return _prediction(claim, sweep, found)
    if claim.kind == "trend":
        return _trend(claim, found[0], verdict.level)
    if sweep.looks is not None:
        raise NoProspect("a launch adds the seeds that it needs by itself")
    seen = seen_before(claim, earlier)
    if seen is None:
        raise NoProspect(
            "no results tell how much seeds differ; run two seeds of its settings first"
        )
    _, evidence = seen
    return Prospect(seeds_goal(claim, evidence, verdict.level))


def _prediction(claim: Claim, sweep: Sweep, found: Sequence[Results]) -> Prospect:
    if len(claim.families) > 1:
        raise NoProspect(f"{len(claim.families)} laws in one; say with ` where …` which is meant")
    results = found[0]
    if any(v <= 0 for arm in claim.families[0] for v in results.get(arm.setting, {}).values()):
        raise NoProspect("a power law has no values of 0 or below")
    noise = noise_of([claim.families[0][:-1]], results, math.log, math.log)
    noise = noise or next(filter(None, map(_seed_noise, found)), None)
    goal = prediction_goal(claim, noise or UNKNOWN, len(sweep.seeds))
    return Prospect(goal, predict(claim, results), measured=noise is not None)


def _seed_noise(results: Results) -> Noise | None:
    """Estimate noise from seeds alone, of settings that may have had other sizes."""
    values = [list(of.values()) for of in results.values()]
    positive = [[math.log(v) for v in of] for of in values if of and min(of) > 0]
    return estimate_noise([], positive)


def _trend(claim: Claim, results: Results, level: float) -> Prospect:
    ran = [tuple(arm for arm in f if results.get(arm.setting)) for f in claim.families]
    families = [family for family in ran if len(family) > 1]
    seen = weigh(claim.model_copy(update={"families": families}), results) if families else None
    noise = noise_of(families, results, math.log2, float)
    if seen is None or noise is None:
        raise NoProspect("no results tell how steep it is; run three sizes first")
    return Prospect(trend_goal(claim, noise, seen.effect, level))
