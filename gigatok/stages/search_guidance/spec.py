"""The stage that searches for the best guidance scale."""

from __future__ import annotations

from gigatok.config import (
    Config,
    EvaluationConfig,
    GuidanceConfig,
    SamplingConfig,
    TrialConfig,
    without_guidance,
)
from gigatok.stages.base import Stage
from gigatok.stages.evaluate_generation.spec import MODELS_AND_REFERENCE
from gigatok.stages.registry import register
from gigatok.stages.search_guidance.cost import COSTS


class SearchGuidanceConfig(Config):
    """Reads of `search_guidance`; the scale of `sampling` is left at 1, since it is searched."""

    guidance: GuidanceConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    seed: int


def _read(trial: TrialConfig) -> SearchGuidanceConfig:
    return SearchGuidanceConfig(
        guidance=trial.guidance,
        # Else trials that differ in their fixed scale would repeat the same search.
        sampling=without_guidance(trial.sampling),
        evaluation=trial.evaluation,
        seed=trial.seed,
    )


SEARCH_GUIDANCE = register(
    Stage(
        name="search_guidance",
        version=1,
        config=SearchGuidanceConfig,
        read=_read,
        module="gigatok.stages.search_guidance.run",
        label="guidance",
        costs=COSTS,
        inputs=MODELS_AND_REFERENCE,
        applies=lambda t: t.guidance.search != "none" and t.data.num_classes > 1,
        assets=lambda t: (t.evaluation.network,),
        scores=lambda t: ("best_cfg_scale", "gfid_best", "gkid_best", "gkid_best_se"),
        parallel=True,
    )
)
