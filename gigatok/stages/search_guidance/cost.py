"""Cost of searching for a guidance scale."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.stages.base import Costs, Disk
from gigatok.stages.evaluate_generation.cost import family, sample_bytes, sample_flops
from gigatok.stages.extract_reference_features.cost import pool_bytes


def flops(trial: TrialConfig) -> int:
    """Count at most: a scale of 1 costs half, and a hill climb may end sooner."""
    # Samples that decide, at every scale, and then the samples that are reported.
    drawn = trial.guidance.most_scales * trial.guidance.num_images + trial.sampling.num_images
    # At the highest scale, where guidance runs a second copy without class.
    return drawn * sample_flops(trial, trial.guidance.high)


def disk(trial: TrialConfig) -> Disk:
    """Count samples, which come and go; the curve that stays has some hundred bytes."""
    # One set at a time is on disk.
    count = max(trial.guidance.num_images, trial.sampling.num_images)
    # Twice, while the shares of processes are joined.
    return Disk(0, 2 * (sample_bytes(trial, count) + pool_bytes(trial, count)))


COSTS = Costs(flops, disk, family)
