"""Cost of encoding all images."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.models.tokenizer.layout import tokenizer_flops
from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import data_family, variant_family

_SMALL_CODEBOOK = 2**15
"""Codes of larger codebooks take int32, not int16."""


def views(trial: TrialConfig) -> int:
    """Count the views of each training image."""
    return trial.codes.crops * (1 + trial.codes.flip)


def flops(trial: TrialConfig) -> int:
    """Count the encoder on all views of training images, and on validation images."""
    # Validation images are encoded in one view, the centre crop.
    encoded = views(trial) * trial.data.train_images + trial.data.val_images
    return encoded * tokenizer_flops(trial.tokenizer, trial.data.image_size).encode


def disk(trial: TrialConfig) -> Disk:
    """Count codes of all views, and int64 labels."""
    data, tokens = trial.data, trial.tokenizer.sequence_length(trial.data.image_size)
    # Bytes per code: int16 is signed, so it holds 2^15 codes.
    width = 2 if trial.tokenizer.vocabulary <= _SMALL_CODEBOOK else 4
    codes = width * tokens * (views(trial) * data.train_images + data.val_images)
    return Disk(codes + 8 * (data.train_images + data.val_images))


COSTS = Costs(flops, disk, lambda t: (data_family(t), variant_family(t)))
