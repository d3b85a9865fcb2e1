"""Cost of training a tokenizer."""

from __future__ import annotations

from gigatok.config import TokenizerArchitecture, TrialConfig
from gigatok.costs.memory import tokenizer_training_memory
from gigatok.costs.optimizers import optimizer_costs
from gigatok.costs.training import tokenizer_step_flops
from gigatok.models.judges.layout import judge_layout
from gigatok.models.tokenizer.layout import (
    tokenizer_flops,
    tokenizer_layout,
    tokenizer_parameters,
)
from gigatok.stages.base import Costs, Disk
from gigatok.stages.families import data_family, training_family, variant_family
from gigatok.stages.training import trained_disk

CODEBOOK_INIT_IMAGES = 256
"""Fewest images whose latents a codebook is initialised from."""
RESTARTS_END = 0.95
"""Dead codes are restarted in this first part of training."""
PICTURED_IMAGES = 8
"""Images that a tokenizer reconstructs for each of its pictures."""
PICTURES = 5
"""Pictures of a training, the last one of the finished tokenizer."""


def picture_steps(steps: int) -> list[int]:
    """Choose the steps of the pictures: a 16th, 8th, quarter, half and all of a training."""
    # Most changes early. A short training has fewer: none is before the first step.
    return sorted({steps >> halvings for halvings in range(PICTURES)} - {0})


def codebook_init_images(config: TokenizerArchitecture, side: int) -> int:
    """Count the images whose latents a codebook is initialised from: as many as its codes need."""
    codes = config.vocabulary if config.has_codebook else 0
    return max(CODEBOOK_INIT_IMAGES, -(-codes // config.tokens_per_image(side)))


def flops(trial: TrialConfig) -> int:
    """Count all steps, and what happens beside them: codebook, restarts, pictures."""
    config, side = trial.tokenizer, trial.data.image_size
    step = tokenizer_step_flops(config, side, cached_teacher=trial.uses_cached_teacher)
    # Steps count from 1: the shortcut ends before its step, the game begins with its own.
    in_shortcut = min(max(config.shortcut_end - 1, 0), config.steps)
    in_game = max(config.steps - config.discriminator_start + 1, 0)
    per_place = config.steps * (step.tokenizer + step.perceptual + step.teacher + step.extra)
    per_place += in_shortcut * step.shortcut + in_game * step.game
    parts = tokenizer_flops(config, side)
    latents = codebook_init_images(config, side) if config.codebook_init == "data" else 0
    latents = min(latents, trial.data.train_images)
    if config.restart_codes_every:
        last = int(RESTARTS_END * config.steps)
        restarts = last // config.restart_codes_every
        latents += restarts * config.batch_size
        # A restart reads its batch again, and with it an online teacher's features.
        if not trial.uses_cached_teacher and config.semantic_weight > 0:
            per_place += restarts * step.teacher
    pictured = len(picture_steps(config.steps)) * min(PICTURED_IMAGES, trial.data.train_images)
    pictures = pictured * (parts.encode + parts.decoder)
    updates = config.steps * optimizer_costs(config, tokenizer_layout(config, side).total).flops
    # Steps are counted per image, all else for the whole training.
    return config.batch_size * per_place + updates + latents * parts.encoder + pictures


def disk(trial: TrialConfig) -> Disk:
    """Count the model and its checkpoints."""
    config, side = trial.tokenizer, trial.data.image_size
    return trained_disk(
        config,
        tokenizer_parameters(config, side).total,
        optimizer_costs(config, tokenizer_layout(config, side).total).moments,
        buffers=config.usage_window,
        opponent=judge_layout(config.discriminator, side).parameters,
    )


def memory(trial: TrialConfig, world: int) -> int:
    """Find the peak of a step, tokenizer and discriminator together."""
    return tokenizer_training_memory(
        trial.tokenizer, trial.data.image_size, world, cached_teacher=trial.uses_cached_teacher
    )


def family(trial: TrialConfig) -> tuple[str, ...]:
    """Name what the time of a FLOP depends on."""
    return (
        data_family(trial),
        variant_family(trial),
        *training_family(trial.tokenizer),
        f"discriminator-{trial.tokenizer.discriminator}",
    )


COSTS = Costs(flops, disk, family, memory)
