"""The stage that searches for the best guidance scale."""

from __future__ import annotations

from functools import lru_cache

from gigatok.config import Config, EvaluationConfig, GuidanceConfig, SamplingConfig, TrialConfig
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


@lru_cache(maxsize=1024)
def _without_scale(sampling: SamplingConfig) -> SamplingConfig:
    # Else trials that differ in their fixed scale would repeat the same search.
    return sampling.model_copy(update={"cfg_scale": 1.0})


def _read(trial: TrialConfig) -> SearchGuidanceConfig:
    return SearchGuidanceConfig(
        guidance=trial.guidance,
        sampling=_without_scale(trial.sampling),
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
        applies=lambda t: t.guidance.search != "none",
        assets=lambda t: (t.evaluation.network,),
        scores=lambda t: ("best_cfg_scale", "gfid_best", "gkid_best", "gkid_best_se"),
        parallel=True,
    )
)
