"""The stage that takes a generator from a file."""

from __future__ import annotations

from functools import lru_cache

from gigatok.config import (
    COMPUTES,
    AdoptedFile,
    Config,
    GeneratorArchitecture,
    TrialConfig,
    marked,
)
from gigatok.data.file_hashes import adopted_file
from gigatok.stages.adopt_generator.cost import COSTS
from gigatok.stages.base import Stage, where_had
from gigatok.stages.extract_codes.spec import EXTRACT_CODES
from gigatok.stages.registry import register
from gigatok.stages.train_generator.spec import generator_scores


class AdoptGeneratorConfig(Config):
    """Reads of `adopt_generator`."""

    architecture: GeneratorArchitecture
    file: AdoptedFile


# Cached: thousands of trials then share one object, which is hashed once.
@lru_cache(maxsize=1024)
def _trained(generator: GeneratorArchitecture) -> GeneratorArchitecture:
    """Drop what only training reads."""
    # One file must not have several keys because of settings that it does not read.
    kept = marked(GeneratorArchitecture, COMPUTES)
    return GeneratorArchitecture(**{name: getattr(generator, name) for name in kept})


def _read(trial: TrialConfig) -> AdoptGeneratorConfig:
    assert trial.adopt.generator is not None
    return AdoptGeneratorConfig(
        architecture=_trained(trial.generator), file=adopted_file(trial.adopt.generator)
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
