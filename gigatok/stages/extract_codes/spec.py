"""The stage that encodes all images once."""

from __future__ import annotations

from gigatok.config import CodesConfig, Config, SplitConfig, TrialConfig
from gigatok.stages.adopt_tokenizer.spec import ADOPT_TOKENIZER
from gigatok.stages.base import Stage, where_had
from gigatok.stages.extract_codes.cost import COSTS
from gigatok.stages.registry import register
from gigatok.stages.train_tokenizer.spec import TRAIN_TOKENIZER


class ExtractCodesConfig(Config):
    """Config of `extract_codes`: what it reads of a trial."""

    # Both splits: the generator is trained on one and validated on the other.
    train: SplitConfig
    val: SplitConfig
    codes: CodesConfig


def _read(trial: TrialConfig) -> ExtractCodesConfig:
    return ExtractCodesConfig(
        train=trial.split("train", labels=True),
        val=trial.split("val", labels=True),
        codes=trial.codes,
    )


def _scores(trial: TrialConfig) -> tuple[str, ...]:
    # Entropies say how well codes can be predicted, before any generator is trained.
    entropies = "unigram_entropy", "bigram_entropy", "trigram_entropy"
    return "codebook_usage", "codebook_perplexity", *entropies


EXTRACT_CODES = register(
    Stage(
        name="extract_codes",
        version=3,
        config=ExtractCodesConfig,
        read=_read,
        module="gigatok.stages.extract_codes.run",
        label="codes",
        costs=COSTS,
        inputs=where_had(TRAIN_TOKENIZER, ADOPT_TOKENIZER),
        # The tokenizer comes from its stage; only the images are fetched.
        assets=lambda t: (t.data.name,),
        scores=_scores,
    )
)
