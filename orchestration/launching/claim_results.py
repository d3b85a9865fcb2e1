"""Results that claims are about: of a plan, and of earlier launches of its sweep."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gigatok.claims.claim import Claim
from gigatok.claims.evidence import Evidence, Results, weigh
from gigatok.names import setting_name
from orchestration.execution.progress import Progress
from orchestration.execution.results import merged_scores, trial_metrics
from orchestration.launching.history import all_launches
from orchestration.launching.launched import LaunchedPlan
from orchestration.runs.state import Store
from orchestration.sweep.settings.keys import SEED

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


def earlier_results(progress: Progress) -> Iterator[Earlier]:
    """Collect results: of this plan, then of earlier launches of the sweep, the newest first."""
    names = {claim.metric for claim in progress.plan.sweep.claims}
    yield "so far", results_of(progress, names)
    for launched in all_launches(progress.store, progress.plan.sweep.name):
        if launched.key != progress.plan.key:
            origin = f"launched at scale {launched.scale}"
            yield origin, results_of_launch(launched, progress.store, names)


def results_of_launch(
    launched: LaunchedPlan, store: Store, names: set[str]
) -> Mapping[str, Results]:
    """Collect what a launched plan's complete stages report of some metrics."""
    done = {key: folder.done() for key, folder in launched.folders(store).items()}
    seeds = {name: int(one.axes[SEED]) for name, one in launched.values().assignments.items()}
    metrics = {
        trial: merged_scores(done[key] for key in stages.values())
        for trial, stages in launched.trials.items()
    }
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
