"""The stage that takes a tokenizer from a file."""

from __future__ import annotations

from pydantic import PositiveInt

from gigatok.config import (
    COMPUTES,
    TRAINING_ONLY,
    AdoptedFile,
    Config,
    TokenizerArchitecture,
    TrialConfig,
)
from gigatok.data.file_hashes import adopted_file
from gigatok.stages.adopt_tokenizer.cost import COSTS
from gigatok.stages.base import Stage
from gigatok.stages.registry import register
from gigatok.stages.sections import with_marked
from gigatok.stages.train_tokenizer.spec import tokenizer_scores


class AdoptTokenizerConfig(Config):
    """Config of `adopt_tokenizer`: what it reads of a trial."""

    architecture: TokenizerArchitecture
    image_size: PositiveInt
    file: AdoptedFile


def _read(trial: TrialConfig) -> AdoptTokenizerConfig:
    assert trial.adopt.tokenizer is not None
    return AdoptTokenizerConfig(
        # The training-only head counts as well: a file may hold it, and its shape is the
        # teacher's. All other settings of training are in the weights already.
        architecture=with_marked(trial.tokenizer, TokenizerArchitecture, COMPUTES, TRAINING_ONLY),
        image_size=trial.data.image_size,
        file=adopted_file(trial.adopt.tokenizer),
    )


ADOPT_TOKENIZER = register(
    Stage(
        name="adopt_tokenizer",
        version=1,
        config=AdoptTokenizerConfig,
        read=_read,
        module="gigatok.stages.adopt_tokenizer.run",
        label="adopted tokenizer",
        costs=COSTS,
        applies=lambda t: t.adopt.tokenizer is not None,
        scores=tokenizer_scores,
        model="tokenizer",
    )
)
