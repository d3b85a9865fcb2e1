"""Parts common to all stages that train: their curves, and the files they leave."""

from __future__ import annotations

from gigatok.config import TrainingConfig
from gigatok.costs.memory import FLOAT
from gigatok.costs.optimizers import ADAM_MOMENTS
from gigatok.stages.base import Disk

TRAINER_CURVES = ("loss", "grad_norm", "lr", "images_per_second")
"""Logged by `gigatok.training.trainer`, whatever it trains."""
CHECKPOINTS = 3
"""The two that are kept, and one being written."""


def trained_disk(
    config: TrainingConfig,
    parameters: int,
    moments: int,
    *,
    buffers: int = 0,
    opponent: int = 0,
) -> Disk:
    """Add up the trained model, and the model, moments and averages in each checkpoint.

    Args:
        config: how it is trained.
        parameters: of the model.
        moments: values that its optimizer holds.
        buffers: values beside them.
        opponent: parameters of a discriminator, which checkpoints hold with its moments.
    """
    # Weights (1), average of weights (1 where there is one).
    copies = 1 + (config.ema_decay > 0)
    # Discriminators have no averages.
    state = copies * parameters + moments + buffers + (1 + ADAM_MOMENTS) * opponent
    # A checkpoint that would be due with the last step is never written.
    written = min((config.steps - 1) // config.checkpoint_every, CHECKPOINTS)
    # What stays, then what goes with the checkpoints.
    return Disk(FLOAT * (parameters + buffers), FLOAT * state * written)
