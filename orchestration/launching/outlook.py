"""Outlook on the claims of a plan: how likely its seeds decide them, and what they decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gigatok.claims.claim import Claim, Looks
from gigatok.claims.evidence import Evidence, Results, weigh
from gigatok.claims.power import Course, aim_of, foresee, more_seeds, power
from gigatok.claims.verdicts import LEVEL, verdicts
from gigatok.claims.words import WANTED_POWER, JudgedClaim, legend
from gigatok.names import METRICS, setting_name
from orchestration.execution.progress import Progress
from orchestration.execution.results import trial_metrics
from orchestration.forecast.budget import newest_refusal
from orchestration.forecast.devices import Machines
from orchestration.launching.claimed import read_claimed
from orchestration.launching.expected_rounds import rounds_line
from orchestration.launching.history import all_launches
from orchestration.launching.launched import LaunchedPlan
from orchestration.runs.state import Store
from orchestration.sweep.definition import Sweep
from orchestration.sweep.settings.keys import SEED


def verdict_lines(progress: Progress) -> list[str]:
    """Say what the results so far make of each claim; nothing without claims."""
    plan, store = progress.plan, progress.store
    claimed = read_claimed(plan, store)
    if not claimed:
        return []
    results = results_of(progress, (one.claim.metric for one in claimed))
    found = verdicts([one.claim for one in claimed], results, plan.sweep.looks)
    judged = [
        JudgedClaim(verdict, one.at, one.results)
        for verdict, one in zip(found, claimed, strict=True)
    ]
    refusal = newest_refusal(store, plan.sweep.name)
    # Of this plan: later ones have the seeds that were refused.
    stopped = refusal is not None and refusal.claims and refusal.plan == plan.key
    unpaid = refusal.reasons if refusal is not None and stopped else []
    return [*(one.sentence for one in judged), *unpaid, legend(judged)]


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


Earlier = tuple[str, Mapping[str, Results]]
"""Where results are from, and metric -> results."""
Seen = tuple[str, Evidence]
"""Where results are from, and what they say of a claim."""


def seen_before(claim: Claim, earlier: Sequence[Earlier]) -> Seen | None:
    """Find the newest results that show the spread of a claim over seeds."""
    for origin, results in earlier:
        evidence = weigh(claim, results.get(claim.metric, {}))
        if claim.decided_by_seeds and evidence is not None and evidence.error > 0:
            return origin, evidence
    return None


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
    effect = metric.signed(shown, 1) + metric.unit_behind
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


# Results on disk


def earlier_results(progress: Progress) -> Iterator[Earlier]:
    """Collect results: of this plan, then of earlier launches of the sweep, the newest first."""
    names = {claim.metric for claim in progress.plan.sweep.claims}
    yield "so far", results_of(progress, names)
    for launched in all_launches(progress.store, progress.plan.sweep.name):
        if launched.key != progress.plan.key:
            origin = f"launched at scale {launched.scale}"
            yield origin, _of_launch(launched, progress.store, names)


def _of_launch(launched: LaunchedPlan, store: Store, names: set[str]) -> Mapping[str, Results]:
    done = {key: folder.done() for key, folder in launched.folders(store).items()}
    seeds = {name: int(one.axes[SEED]) for name, one in launched.values().assignments.items()}
    metrics: dict[str, dict[str, float]] = defaultdict(dict)
    for trial, stages in launched.trials.items():
        for key in stages.values():
            record = done[key]
            metrics[trial] |= record.metrics if record else {}
    return {name: _results(metrics, seeds, name) for name in names}


def results_of(progress: Progress, names: Iterable[str]) -> dict[str, Results]:
    """Collect what a plan's complete stages report of some metrics, by setting and seed."""
    seeds = {one.trial.name: one.trial.config.seed for one in progress.plan.trials}
    metrics = trial_metrics(progress)
    return {name: _results(metrics, seeds, name) for name in names}


def _results(
    metrics: Mapping[str, Mapping[str, float]], seeds: Mapping[str, int], metric: str
) -> Results:
    """Map setting and seed to a metric's value, where it is finite."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for trial, values in metrics.items():
        if math.isfinite(value := values.get(metric, math.nan)):
            found[setting_name(trial)][seeds[trial]] = value
    return found
