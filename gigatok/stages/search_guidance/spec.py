"""The stage that searches for the best guidance scale."""

from __future__ import annotations

from gigatok.config import Config, EvaluationConfig, GuidanceConfig, SamplingConfig, TrialConfig
from gigatok.stages.base import Stage
from gigatok.stages.evaluate_generation.spec import MODELS_AND_REFERENCE
from gigatok.stages.registry import register
from gigatok.stages.search_guidance.cost import COSTS
from gigatok.stages.sections import with_fixed


class SearchGuidanceConfig(Config):
    """Config of `search_guidance`: what it reads of a trial, but for the scale, which it finds."""

    guidance: GuidanceConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    seed: int


def _read(trial: TrialConfig) -> SearchGuidanceConfig:
    return SearchGuidanceConfig(
        guidance=trial.guidance,
        # Else trials that differ in their fixed scale would repeat the same search.
        sampling=with_fixed(trial.sampling, cfg_scale=1.0),
        evaluation=trial.evaluation,
        seed=trial.seed,
    )


SEARCH_GUIDANCE = register(
    Stage(
        name="search_guidance",
        version=2,
        config=SearchGuidanceConfig,
        read=_read,
        module="gigatok.stages.search_guidance.run",
        label="guidance",
        costs=COSTS,
        inputs=MODELS_AND_REFERENCE,
        applies=lambda t: t.guidance.search != "none" and t.data.num_classes > 1,
        # As for `evaluate_generation`: no image is read.
        assets=lambda t: (t.evaluation.network,),
        scores=lambda t: ("best_cfg_scale", "gfid_best", "gkid_best", "gkid_best_se"),
        parallel=True,
    )
)
