"""Outlook on the claims of a plan: how likely its seeds decide them, and what they decided."""

from __future__ import annotations

import math

from gigatok.claims.claim import Claim, Looks
from gigatok.claims.evidence import Evidence
from gigatok.claims.power import Course, aim_of, foresee, more_seeds, power
from gigatok.claims.verdicts import LEVEL, verdicts
from gigatok.claims.words import WANTED_POWER, JudgedClaim, legend
from gigatok.names import METRICS
from orchestration.execution.progress import Progress
from orchestration.forecast.budget import newest_refusal
from orchestration.forecast.devices import Machines
from orchestration.launching.claim_results import (
    Seen,
    earlier_results,
    results_of,
    seen_before,
)
from orchestration.launching.claimed import read_claimed
from orchestration.launching.expected_rounds import rounds_line
from orchestration.sweep.definition import Sweep


def verdict_lines(progress: Progress) -> list[str]:
    """Say what the results so far make of each claim; nothing without claims."""
    plan, store = progress.plan, progress.store
    claimed = read_claimed(plan, store)
    if not claimed:
        return []
    results = results_of(progress, (one.claim.metric for one in claimed))
    found = verdicts([one.claim for one in claimed], results, plan.sweep.looks)
    judged = [
        JudgedClaim(verdict, one.at, one.results, one.prediction)
        for verdict, one in zip(found, claimed, strict=True)
    ]
    return [*(one.sentence for one in judged), legend(judged)]


def unpaid_lines(progress: Progress) -> list[str]:
    """Say why claims that are undecided got no more seeds; nothing where none were refused."""
    plan = progress.plan
    refusal = newest_refusal(progress.store, plan.sweep.name)
    # Of this plan: later ones have the seeds that were refused.
    stopped = refusal is not None and refusal.claims and refusal.plan == plan.key
    return refusal.reasons if refusal is not None and stopped else []


def claim_lines(progress: Progress, machine: Machines) -> list[str]:
    """Name each claim, and how likely the seeds of the plan decide it, from earlier results.

    Args:
        progress: of the plan.
        machine: on what stages run, for the cost of seeds until decided.
    """
    sweep = progress.plan.sweep
    if not sweep.claims:
        return []
    earlier = list(earlier_results(progress))
    # As if none were decided yet: the strictest of Holm's steps.
    level = LEVEL / len(sweep.claims)
    known = {claim.name: seen_before(claim, earlier) for claim in sweep.claims}
    lines = [
        f"claim {claim.name}: {claim.text}; {_outlook(claim, sweep, known[claim.name], level)}"
        for claim in sweep.claims
    ]
    if sweep.looks is None:
        return lines
    _, so_far = earlier[0]
    open_ = {
        verdict.claim: seen and _course(verdict.claim, seen[1], sweep.looks, level)
        for verdict, seen in zip(
            verdicts(sweep.claims, so_far, sweep.looks), known.values(), strict=True
        )
        if verdict.decision == "undecided" and verdict.claim.decided_by_seeds
    }
    return [*lines, rounds_line(progress, machine, open_)]


def _outlook(claim: Claim, sweep: Sweep, seen: Seen | None, level: float) -> str:
    if not claim.decided_by_seeds:
        return "its sizes decide it, seeds hardly"
    if seen is None:
        return "no earlier results with two seeds tell how likely it is decided"
    if len(sweep.seeds) < 2:
        return "one seed decides nothing"
    origin, evidence = seen
    metric = METRICS[claim.metric]
    shown = evidence.effect if claim.rises else -evidence.effect
    effect = metric.signed(shown, 1) + metric.difference_unit
    say = _fixed if sweep.looks is None else _until_decided
    return f"{say(claim, evidence, sweep, level)}, if it is as {origin}: {effect}"


def _fixed(claim: Claim, seen: Evidence, sweep: Sweep, level: float) -> str:
    """Say with which probability the seeds of a sweep decide a claim, and how many would."""
    seeds, aim, spread = len(sweep.seeds), aim_of(claim, seen.effect), _spread(seen)
    likely = power(seen.effect, spread, seeds, level, aim)
    text = f"{seeds} seeds decide {_way(claim, seen)} with probability {likely:.0%}"
    more = more_seeds(seen.effect, spread, seeds, level, WANTED_POWER, aim)
    if likely >= WANTED_POWER or more is None:
        return text
    return (
        f"{text}, {seeds + more} with {power(seen.effect, spread, seeds + more, level, aim):.0%}"
    )


def _until_decided(claim: Claim, seen: Evidence, sweep: Sweep, level: float) -> str:
    """Say the same of the first look and of all looks."""
    assert sweep.looks is not None
    course = _course(claim, seen, sweep.looks, level)
    return (
        f"{sweep.looks.start} seeds decide {_way(claim, seen)} with probability "
        f"{1 - course.undecided[0]:.0%}, up to {sweep.looks.at_most} with "
        f"{1 - course.undecided[-1]:.0%}"
    )


def _course(claim: Claim, seen: Evidence, looks: Looks, level: float) -> Course:
    return foresee(seen.effect, _spread(seen), looks, level, aim_of(claim, seen.effect))


def _spread(seen: Evidence) -> float:
    return seen.error * math.sqrt(seen.seeds)


def _way(claim: Claim, seen: Evidence) -> str:
    """Say whether the effect that was seen supports a claim or contradicts it."""
    distance = claim.margin - abs(seen.effect)
    if claim.kind != "equivalence":
        distance = seen.effect - claim.margin
    return "it" if distance >= 0 else "against it"
