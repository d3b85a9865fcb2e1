"""The stage that takes a generator from a file."""

from __future__ import annotations

from gigatok.config import COMPUTES, AdoptedFile, Config, GeneratorArchitecture, TrialConfig
from gigatok.data.file_hashes import adopted_file
from gigatok.stages.adopt_generator.cost import COSTS
from gigatok.stages.base import Stage, where_had
from gigatok.stages.extract_codes.spec import EXTRACT_CODES
from gigatok.stages.registry import register
from gigatok.stages.sections import with_marked
from gigatok.stages.train_generator.spec import generator_scores


class AdoptGeneratorConfig(Config):
    """Config of `adopt_generator`: what it reads of a trial."""

    architecture: GeneratorArchitecture
    file: AdoptedFile


def _read(trial: TrialConfig) -> AdoptGeneratorConfig:
    assert trial.adopt.generator is not None
    return AdoptGeneratorConfig(
        # One file must not have several keys because of settings that only training reads.
        architecture=with_marked(trial.generator, GeneratorArchitecture, COMPUTES),
        file=adopted_file(trial.adopt.generator),
    )


ADOPT_GENERATOR = register(
    Stage(
        name="adopt_generator",
        version=1,
        config=AdoptGeneratorConfig,
        read=_read,
        module="gigatok.stages.adopt_generator.run",
        label="adopted AR probe",
        costs=COSTS,
        inputs=where_had(EXTRACT_CODES),
        applies=lambda t: t.adopt.generator is not None,
        scores=generator_scores,
        model="generator",
    )
)
