"""The stage that takes a tokenizer from a file."""

from __future__ import annotations

from functools import lru_cache

from pydantic import PositiveInt

from gigatok.config import (
    COMPUTES,
    TRAINING_ONLY,
    AdoptedFile,
    Config,
    TokenizerArchitecture,
    TrialConfig,
    marked,
)
from gigatok.data.file_hashes import adopted_file
from gigatok.stages.adopt_tokenizer.cost import COSTS
from gigatok.stages.base import Stage
from gigatok.stages.registry import register
from gigatok.stages.train_tokenizer.spec import tokenizer_scores


class AdoptTokenizerConfig(Config):
    """Reads of `adopt_tokenizer`."""

    architecture: TokenizerArchitecture
    image_size: PositiveInt
    file: AdoptedFile


# Cached: thousands of trials then share one object, which is hashed once.
@lru_cache(maxsize=1024)
def _trained(tokenizer: TokenizerArchitecture) -> TokenizerArchitecture:
    """Drop what only training reads: all of it is in the weights already."""
    # The head counts as well: a file may hold it, and its shape is the teacher's.
    kept = marked(TokenizerArchitecture, COMPUTES, TRAINING_ONLY)
    return TokenizerArchitecture(**{name: getattr(tokenizer, name) for name in kept})


def _read(trial: TrialConfig) -> AdoptTokenizerConfig:
    assert trial.adopt.tokenizer is not None
    return AdoptTokenizerConfig(
        architecture=_trained(trial.tokenizer),
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
