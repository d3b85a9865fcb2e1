"""The stage that computes the features which rFID and gFID compare with."""

from __future__ import annotations

from gigatok.config import Config, SplitConfig, TrialConfig
from gigatok.stages.base import Stage
from gigatok.stages.extract_reference_features.cost import COSTS
from gigatok.stages.registry import register


class ReferenceFeaturesConfig(Config):
    """Config of `extract_reference_features`: what it reads of a trial."""

    val: SplitConfig
    # Not all of `evaluation`: its other fields change no feature, so they must not be in the key.
    network: str
    resolution: int


def _read(trial: TrialConfig) -> ReferenceFeaturesConfig:
    return ReferenceFeaturesConfig(
        # The images that are reconstructed, in the same order: paired KID relies on it.
        val=trial.split("val", trial.evaluation.num_images),
        network=trial.evaluation.network,
        resolution=trial.evaluation.resolution,
    )


EXTRACT_REFERENCE_FEATURES = register(
    Stage(
        name="extract_reference_features",
        version=2,
        config=ReferenceFeaturesConfig,
        read=_read,
        module="gigatok.stages.extract_reference_features.run",
        label="reference",
        costs=COSTS,
        readable=lambda t: f"{t.data.name}-{t.evaluation.network}",
        # Images of one data set and features of one network, whatever the trial trains.
        assets=lambda t: (t.data.name, t.evaluation.network),
    )
)
