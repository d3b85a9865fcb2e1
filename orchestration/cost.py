"""What a stage will need. So far: which stages to start first, so that the whole ends soonest."""

from __future__ import annotations

from gigatok.config import TransformerSize
from gigatok.stages import (
    EvaluateGenerationConfig,
    EvaluateReconstructionConfig,
    ReferenceFeaturesConfig,
    TrainGeneratorConfig,
    TrainTokenizerConfig,
)
from orchestration.plan import Plan, PlannedStage

# Nominal seconds, from measured micro runs on one core; only their order matters here.
_SECONDS_PER_PARAMETER_SAMPLE = 3e-9
_SECONDS_PER_INCEPTION_IMAGE = 0.15
_OTHER_SECONDS = 5.0


def nominal_cost(stage: PlannedStage) -> float:
    """Rough run time of a stage, good for ordering only."""
    config = stage.config
    if isinstance(config, TrainTokenizerConfig):
        tokenizer = config.tokenizer
        width = _parameters(tokenizer.encoder) + _parameters(tokenizer.decoder)
        samples = tokenizer.steps * tokenizer.batch_size
        return samples * (1e5 + width) * _SECONDS_PER_PARAMETER_SAMPLE
    if isinstance(config, TrainGeneratorConfig):
        generator = config.generator
        samples = generator.steps * generator.batch_size
        return samples * _parameters(generator.size) * _SECONDS_PER_PARAMETER_SAMPLE
    if isinstance(config, EvaluateReconstructionConfig | ReferenceFeaturesConfig):
        return config.val.images * _SECONDS_PER_INCEPTION_IMAGE
    if isinstance(config, EvaluateGenerationConfig):
        return config.sampling.num_images * _SECONDS_PER_INCEPTION_IMAGE
    return _OTHER_SECONDS


def remaining_cost(plan: Plan) -> dict[str, float]:
    """Cost of the longest chain that starts with each stage: start the longest first."""
    cost = {key: nominal_cost(stage) for key, stage in plan.stages.items()}
    longest = dict.fromkeys(cost, 0.0)
    for key in reversed(list(plan.stages)):
        longest[key] += cost[key]
        for parent in plan.stages[key].inputs.values():
            longest[parent] = max(longest[parent], longest[key])
    return longest


def _parameters(size: TransformerSize) -> int:
    return 12 * size.layers * size.width**2
