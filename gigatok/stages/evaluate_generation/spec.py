"""The stage that scores a generator by its samples."""

from __future__ import annotations

from gigatok.config import Config, EvaluationConfig, SamplingConfig, TrialConfig
from gigatok.stages.adopt_generator.spec import ADOPT_GENERATOR
from gigatok.stages.adopt_tokenizer.spec import ADOPT_TOKENIZER
from gigatok.stages.base import Condition, Stage, where_had
from gigatok.stages.evaluate_generation.cost import COSTS
from gigatok.stages.extract_reference_features.spec import EXTRACT_REFERENCE_FEATURES
from gigatok.stages.registry import register
from gigatok.stages.train_generator.spec import TRAIN_GENERATOR
from gigatok.stages.train_tokenizer.spec import TRAIN_TOKENIZER


class EvaluateGenerationConfig(Config):
    """Config of `evaluate_generation`: what it reads of a trial."""

    sampling: SamplingConfig
    evaluation: EvaluationConfig
    seed: int


def _compares_with_val(trial: TrialConfig) -> bool:
    return trial.evaluation.reference == "val"


MODELS_AND_REFERENCE: dict[str, Condition] = {
    **where_had(TRAIN_TOKENIZER, ADOPT_TOKENIZER, TRAIN_GENERATOR, ADOPT_GENERATOR),
    # Statistics from a file replace the features of validation images.
    EXTRACT_REFERENCE_FEATURES.name: _compares_with_val,
}
"""Inputs of stages that sample and compare with real images."""


def _scores(trial: TrialConfig) -> tuple[str, ...]:
    # Statistics of a reference file may come without images, which KID and recall need, and the
    # classifier of the Inception Score may be missing: a file on another machine cannot be asked.
    names = ["gfid", "gkid", "gkid_se", "precision", "recall"]
    if trial.evaluation.network == "inception":
        names += ["gsfid", "inception_score"]
    return tuple(names)


EVALUATE_GENERATION = register(
    Stage(
        name="evaluate_generation",
        version=2,
        config=EvaluateGenerationConfig,
        read=lambda t: EvaluateGenerationConfig(
            sampling=t.effective_sampling, evaluation=t.evaluation, seed=t.seed
        ),
        module="gigatok.stages.evaluate_generation.run",
        label="generation",
        costs=COSTS,
        inputs=MODELS_AND_REFERENCE,
        # No images: samples are compared with features that are extracted already.
        assets=lambda t: (t.evaluation.network,),
        scores=_scores,
        # A bad tokenizer spoils samples as well, but the reconstruction has judged it before.
        judges=dict.fromkeys(("gfid", "gkid"), TRAIN_GENERATOR.name),
        parallel=True,
    )
)
