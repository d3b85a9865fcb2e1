"""The stage that probes a tokenizer's features."""

from __future__ import annotations

from gigatok.config import (
    CodesConfig,
    Config,
    ProbeConfig,
    ProbedFeatures,
    SplitConfig,
    TrialConfig,
)
from gigatok.stages.adopt_tokenizer.spec import ADOPT_TOKENIZER
from gigatok.stages.base import Stage, where_had
from gigatok.stages.probe_tokenizer.cost import COSTS
from gigatok.stages.registry import register
from gigatok.stages.sections import with_fixed
from gigatok.stages.train_tokenizer.spec import TRAIN_TOKENIZER


class ProbeTokenizerConfig(Config):
    """Config of `probe_tokenizer`: what it reads of a trial."""

    train: SplitConfig
    val: SplitConfig
    # Views of training images are those that the codes are of, though no code is read.
    codes: CodesConfig
    features: ProbedFeatures
    probe: ProbeConfig
    seed: int


def _read(trial: TrialConfig) -> ProbeTokenizerConfig:
    return ProbeTokenizerConfig(
        train=trial.split("train", labels=True),
        val=trial.split("val", labels=True),
        codes=trial.codes,
        features=trial.tokenizer_probe.features,
        # The layer and the dropout are the generator's.
        probe=with_fixed(trial.probe, layer=0, reference_dropout_quirk=False),
        seed=trial.seed,
    )


PROBE_TOKENIZER = register(
    Stage(
        name="probe_tokenizer",
        version=2,
        config=ProbeTokenizerConfig,
        read=_read,
        module="gigatok.stages.probe_tokenizer.run",
        label="tokenizer probe",
        costs=COSTS,
        inputs=where_had(TRAIN_TOKENIZER, ADOPT_TOKENIZER),
        applies=lambda t: t.tokenizer_probe.features != "none" and t.data.num_classes > 1,
        assets=lambda t: (t.data.name,),
        scores=lambda t: ("tokenizer_probe_accuracy",),
    )
)
