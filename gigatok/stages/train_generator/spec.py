"""The stage that trains a generator on codes."""

from __future__ import annotations

from gigatok.config import Config, GeneratorConfig, TrialConfig
from gigatok.names import TRAIN_PREFIX
from gigatok.stages.base import Stage, where_had
from gigatok.stages.extract_codes.spec import EXTRACT_CODES
from gigatok.stages.registry import register
from gigatok.stages.train_generator.cost import COSTS
from gigatok.stages.training import TRAINER_CURVES


class TrainGeneratorConfig(Config):
    """Config of `train_generator`: what it reads of a trial."""

    generator: GeneratorConfig
    seed: int


def generator_scores(trial: TrialConfig) -> tuple[str, ...]:
    """Name the scores of a new generator, trained or adopted."""
    return "params_generator", "ar_val_loss", "ar_train_loss", "ar_bits_per_image"


TRAIN_GENERATOR = register(
    Stage(
        name="train_generator",
        version=2,
        config=TrainGeneratorConfig,
        read=lambda t: TrainGeneratorConfig(generator=t.generator, seed=t.seed),
        module="gigatok.stages.train_generator.run",
        label="AR probe",
        costs=COSTS,
        # Codes are extracted once, where the reference encodes every batch anew.
        inputs=where_had(EXTRACT_CODES),
        applies=lambda t: t.adopt.generator is None,
        scores=generator_scores,
        curves=lambda t: tuple(TRAIN_PREFIX + name for name in TRAINER_CURVES),
        # It judges itself: its own losses say whether larger generators are worth starting.
        judges=dict.fromkeys(("ar_train_loss", "ar_val_loss"), "train_generator"),
        model="generator",
        trains=True,
        parallel=True,
    )
)
