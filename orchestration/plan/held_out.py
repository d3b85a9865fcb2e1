"""Settings that a claim predicts, and what has to be known before they start.

A prediction is worth something only if it was written down first. So the largest setting of such a
claim waits until the smaller ones are measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from gigatok.claims.claim import Claim
from gigatok.names import setting_name
from gigatok.stages import STAGES
from orchestration.plan.graph import Plan, PlannedTrial


@dataclass(frozen=True)
class PredictedSetting:
    """Largest setting of a prediction.

    Attributes:
        claim: the prediction.
        first: keys of the stages with which the setting begins: what it shares with smaller ones
            is none of them.
        measured: keys of the stages that measure the smaller settings.
    """

    claim: Claim
    first: tuple[str, ...]
    measured: tuple[str, ...]


def held_out(plan: Plan) -> list[PredictedSetting]:
    """Find the largest setting of every prediction of a plan."""
    return [_held_out(plan, claim) for claim in plan.sweep.claims if claim.kind == "prediction"]


def _held_out(plan: Plan, claim: Claim) -> PredictedSetting:
    *smaller, largest = sorted(claim.families[0], key=lambda arm: arm.x or 0.0)
    below = _trials(plan, {arm.setting for arm in smaller})
    shared = {key for trial in below for key in trial.stages.values()}
    own = {
        key: None
        for trial in _trials(plan, {largest.setting})
        for key in trial.stages.values()
        if key not in shared
    }
    first = [key for key in own if own.keys().isdisjoint(plan.stages[key].inputs.values())]
    measured = {key: None for trial in below for key in stages_with(trial, claim.metric)}
    return PredictedSetting(claim, tuple(first), tuple(measured))


def _trials(plan: Plan, settings: set[str]) -> list[PlannedTrial]:
    return [trial for trial in plan.trials if setting_name(trial.trial.name) in settings]


def stages_with(trial: PlannedTrial, metric: str) -> list[str]:
    """List the keys of the stages of a trial that measure a metric."""
    config = trial.trial.config
    return [key for name, key in trial.stages.items() if metric in STAGES[name].scores(config)]
