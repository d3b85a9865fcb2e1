"""Cost of drawing images and scoring them."""

from __future__ import annotations

from gigatok.config import TrialConfig
from gigatok.models.generator.layout import sampling_flops
from gigatok.models.tokenizer.layout import tokenizer_flops
from gigatok.stages.base import Costs, Disk
from gigatok.stages.extract_reference_features.cost import features_flops, pool_bytes
from gigatok.stages.families import data_family, variant_family


def flops(trial: TrialConfig) -> int:
    """Count all samples."""
    return trial.sampling.num_images * sample_flops(trial, trial.effective_sampling.cfg_scale)


def sample_flops(trial: TrialConfig, cfg_scale: float) -> int:
    """Count drawing one image, and its features."""
    side, codes = trial.data.image_size, trial.tokenizer.codebook_size
    tokens = trial.tokenizer.tokens_per_image(side)
    # A scale of 1 is no guidance, and needs no second copy without class.
    per_image = sampling_flops(trial.generator, codes, tokens, guided=cfg_scale > 1)
    return per_image + tokenizer_flops(trial.tokenizer, side).decoder + features_flops(trial)


def sample_bytes(trial: TrialConfig, count: int) -> int:
    """Count uint8 images and int64 labels."""
    # Three bytes per pixel, eight per label.
    return count * (3 * trial.data.image_size**2 + 8)


def disk(trial: TrialConfig) -> Disk:
    """Count the samples, which exist twice while the shares of processes are joined."""
    count = trial.sampling.num_images
    images = sample_bytes(trial, count)
    # What stays, then what goes when the shares are joined.
    return Disk(images, images + pool_bytes(trial, count))


def family(trial: TrialConfig) -> tuple[str, ...]:
    """Name what the time of a FLOP depends on."""
    return data_family(trial), variant_family(trial), trial.evaluation.network


COSTS = Costs(flops, disk, family)
