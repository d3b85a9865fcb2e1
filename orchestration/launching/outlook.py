"""Outlook on the claims of a plan: how likely its seeds decide them, and what they decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from gigatok.claims.claim import Claim
from gigatok.claims.evidence import Evidence, Results, weigh
from gigatok.claims.power import more_seeds, power
from gigatok.claims.verdicts import LEVEL, verdicts
from gigatok.claims.words import WANTED_POWER, JudgedClaim, legend
from gigatok.names import METRICS, setting_name
from orchestration.execution.progress import Progress
from orchestration.execution.results import trial_metrics
from orchestration.launching.claimed import read_claimed
from orchestration.launching.history import all_launches
from orchestration.launching.launched import LaunchedPlan
from orchestration.runs.state import Store
from orchestration.sweep.settings.keys import SEED


def verdict_lines(progress: Progress) -> list[str]:
    """Say what the results so far make of each claim; nothing without claims."""
    claimed = read_claimed(progress.plan, progress.store)
    if not claimed:
        return []
    results = results_of(progress, (one.claim.metric for one in claimed))
    found = verdicts([one.claim for one in claimed], results, progress.plan.sweep.looks)
    judged = [
        JudgedClaim(verdict, one.at, one.results)
        for verdict, one in zip(found, claimed, strict=True)
    ]
    return [*(one.sentence for one in judged), legend(judged)]


def claim_lines(progress: Progress) -> list[str]:
    """Name each claim, and how likely the seeds of the plan decide it, from earlier results."""
    sweep = progress.plan.sweep
    if not sweep.claims:
        return []
    earlier = list(earlier_results(progress))
    # As if none were decided yet: the strictest of Holm's steps.
    level = LEVEL / len(sweep.claims)
    return [
        f"claim {claim.name}: {claim.text}; {_outlook(claim, len(sweep.seeds), level, earlier)}"
        for claim in sweep.claims
    ]


Earlier = tuple[str, Mapping[str, Results]]
"""Where results are from, and metric -> results."""


def _outlook(claim: Claim, seeds: int, level: float, earlier: list[Earlier]) -> str:
    if claim.kind in ("trend", "prediction"):
        return "its sizes decide it, seeds hardly"
    for origin, results in earlier:
        evidence = weigh(claim, results.get(claim.metric, {}))
        if evidence is not None and evidence.error > 0:
            return _power(claim, evidence, origin, seeds, level)
    return "no earlier results with two seeds tell how likely it is decided"


def _power(claim: Claim, seen: Evidence, origin: str, seeds: int, level: float) -> str:
    """Say with which probability so many seeds decide a claim, if all is as it was seen."""
    distance = seen.effect - claim.margin
    if claim.kind == "equivalence":
        distance = claim.margin - abs(seen.effect)
    spread = seen.error * math.sqrt(seen.seeds)
    metric = METRICS[claim.metric]
    effect = metric.signed(seen.effect if claim.rises else -seen.effect, 1) + metric.unit_behind
    if seeds < 2:
        return "one seed decides nothing"
    likely = power(distance, spread, seeds, level)
    # Beyond the margin on the other side, the same effect contradicts the claim.
    way = "it" if distance >= 0 else "against it"
    parts = [f"{seeds} seeds decide {way} with probability {likely:.0%}"]
    more = more_seeds(distance, spread, seeds, level, WANTED_POWER)
    if likely < WANTED_POWER and more is not None:
        enough = power(distance, spread, seeds + more, level)
        parts.append(f"{seeds + more} with {enough:.0%}")
    return f"{', '.join(parts)}, if it is as {origin}: {effect}"


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
