"""Cost of extracting teacher features."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.models.layers import linear
from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import data_family


def flops(trial: TrialConfig) -> int:
    """Count the teacher on all views, and the reduction to components."""
    teacher = trial.tokenizer.teacher_cost
    components = trial.tokenizer.teacher_components
    # Covariance of the channels, then their projection.
    reduction = linear(teacher.grid**2, teacher.dim, teacher.dim + components).flops
    per_view = teacher.flops + (reduction if components else 0)
    return _views(trial) * trial.data.train_images * per_view


def disk(trial: TrialConfig) -> Disk:
    """Count float16 features of all images, and of mirrored ones."""
    teacher = trial.tokenizer.teacher_cost
    dim = trial.tokenizer.teacher_components or teacher.dim
    # Two bytes per value.
    return Disk(2 * _views(trial) * trial.data.train_images * teacher.grid**2 * dim)


def _views(trial: TrialConfig) -> int:
    # Random crops are never cached: they are new in every step.
    return 2 if trial.tokenizer.augment == "flip" else 1


COSTS = Costs(flops, disk, lambda t: (data_family(t), t.tokenizer.teacher))
