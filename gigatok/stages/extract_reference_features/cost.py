"""Cost of extracting features of images for FID, KID and the like."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.costs.memory import FLOAT
from gigatok.models.frozen.layout import feature_flops
from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import data_family

_POOL = {"inception": 2048}
"""Pooled features of a network; of others, the pixels."""


def features_flops(trial: TrialConfig) -> int:
    """Count the feature network on one image."""
    evaluation = trial.evaluation
    # With the resize to the network's side.
    return feature_flops(evaluation.network, evaluation.resolution, trial.data.image_size)


def pool_bytes(trial: TrialConfig, images: int) -> int:
    """Count pooled features of some images."""
    evaluation = trial.evaluation
    # Features are kept in float32: KID takes differences of nearly equal sums.
    return FLOAT * images * _POOL.get(evaluation.network, 3 * evaluation.resolution**2)


COSTS = Costs(
    flops=lambda t: t.evaluation.num_images * features_flops(t),
    disk=lambda t: Disk(pool_bytes(t, t.evaluation.num_images)),
    family=lambda t: (data_family(t), t.evaluation.network),
)
