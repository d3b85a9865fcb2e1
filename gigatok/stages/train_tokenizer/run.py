"""Train a tokenizer on all its losses, a discriminator in turn with it (paper section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from gigatok.config import TokenizerConfig
from gigatok.data.splits import load_split
from gigatok.models.frozen.perceptual import LPIPS, REFERENCE_DROPOUT
from gigatok.models.frozen.teachers import build_teacher
from gigatok.models.judges.discriminators import build_discriminator, virtual_batches
from gigatok.models.losses.base import build_loss
from gigatok.models.tokenizer.base import Tokenizer, build_tokenizer
from gigatok.models.tokenizer.codebook import initialise_from_data
from gigatok.runtime.context import Ranks, Runtime, Scores
from gigatok.runtime.distributed import gather, gathered, parallelise
from gigatok.runtime.tracker import Tracker
from gigatok.stages.extract_teacher_features.run import TeacherFeatures
from gigatok.stages.train_tokenizer.adversarial import Adversary
from gigatok.stages.train_tokenizer.batches import (
    CachedTarget,
    OnlineTarget,
    SemanticTarget,
    TokenizerBatches,
)
from gigatok.stages.train_tokenizer.cost import (
    RESTARTS_END,
    codebook_init_images,
    picture_steps,
)
from gigatok.stages.train_tokenizer.losses import Perceptual
from gigatok.stages.train_tokenizer.objective import Objective
from gigatok.stages.train_tokenizer.scoring import parameter_scores
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from gigatok.training.saved import place, save_tokenizer
from gigatok.training.seeds import step_seed
from gigatok.training.trainer import Trainer, micro_batches

PICTURE = "reconstructions"
"""Name of the pictures, one of them at each of `picture_steps`."""


def run(
    config: TrainTokenizerConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Train; leave `model.safetensors` and `model.json`. Metrics: parameter counts."""
    # Before the model is made: its constructor draws the weights.
    torch.manual_seed(step_seed(config.seed, 0, "weights"))
    # Before the model: the head is as wide as the teacher's features.
    target = _semantic_target(config, inputs.get("extract_teacher_features"), runtime.device)
    tokenizer = place(_build(config, target), runtime.device)
    batches = TokenizerBatches(config, load_split(config.train), target, runtime.device)
    perceptual = _perceptual(config, runtime.device)
    # Before the optimizer, which the trainer makes: sharding replaces the parameters.
    forward = parallelise(tokenizer, config.tokenizer)
    adversary = _adversary(config.tokenizer, runtime)
    extra = [build_loss(loss, runtime.device) for loss in config.tokenizer.extra_losses]
    objective = Objective(
        config.tokenizer, tokenizer, forward, batches.get, perceptual, adversary, extra
    )
    Trainer(
        tokenizer,
        config.tokenizer,
        config.seed,
        objective.losses,
        tracker,
        runtime,
        before_first_step=partial(_initialise_codebook, tokenizer, config, batches),
        after_step=partial(_after_step, tokenizer, config, batches, tracker, runtime.ranks),
        extra_metrics=lambda: {"codebook_usage": tokenizer.quantize.usage()},
        forward=forward,
        opponent=objective.opponent(),
    ).run()
    save_tokenizer(output_dir, tokenizer)
    # After saving: only the picture below needs whole layers on every rank.
    gathered(tokenizer)
    tracker.image(PICTURE, batches.picture(tokenizer), config.tokenizer.steps)
    return parameter_scores(
        config.tokenizer,
        config.train.image_size,
        target.dim if target else 0,
        "with codebook and training-only semantic head, as published",
    )


def _semantic_target(
    config: TrainTokenizerConfig, cache: Path | None, device: str
) -> SemanticTarget | None:
    """Read the teacher's features from a cache where there is one; else build the teacher."""
    if config.tokenizer.semantic_weight == 0:
        return None
    if cache is not None:
        return CachedTarget(TeacherFeatures.load(cache))
    tokenizer = config.tokenizer
    teacher = build_teacher(tokenizer.teacher, device, tokenizer.found_teacher)
    if tokenizer.compile:
        teacher.network.compile(dynamic=False)
    return OnlineTarget(teacher)


def _build(config: TrainTokenizerConfig, target: SemanticTarget | None) -> Tokenizer:
    return build_tokenizer(
        config.tokenizer,
        config.train.image_size,
        teacher_dim=target.dim if target else 0,
        teacher_grid=target.grid if target else 0,
        activation_checkpointing=config.tokenizer.activation_checkpointing,
    )


def _perceptual(config: TrainTokenizerConfig, device: str) -> Perceptual | None:
    if config.tokenizer.perceptual_weight == 0:
        return None
    dropout = REFERENCE_DROPOUT if config.tokenizer.reference_perceptual_quirk else 0.0
    network = LPIPS(config.tokenizer.perceptual_network, dropout).to(device)
    # Jittered images have another size in each step, and each size would be compiled.
    if config.tokenizer.compile and config.tokenizer.perceptual_jitter == 0:
        network.compile(dynamic=False)
    return network


def _adversary(config: TokenizerConfig, runtime: Runtime) -> Adversary | None:
    """Build the discriminator, its weights drawn after the tokenizer's.

    Raises:
        ValueError: it will not take the batch: better said now than when its turn comes.
    """
    if config.discriminator == "none":
        return None
    if config.discriminator == "dino":
        for part in micro_batches(config, runtime):
            virtual_batches(part.stop - part.start)
    device = runtime.device
    return Adversary(config, build_discriminator(config.discriminator, device)).to(device)


def _initialise_codebook(
    tokenizer: Tokenizer, config: TrainTokenizerConfig, batches: TokenizerBatches
) -> None:
    if config.tokenizer.codebook_init == "data":
        # Generators of their own: the global one must draw the same with and without this option.
        generator = torch.Generator().manual_seed(step_seed(config.seed, 0, "codebook"))
        images = codebook_init_images(config.tokenizer, config.train.image_size)
        initialise_from_data(tokenizer, batches.first(images), generator)


def _after_step(
    tokenizer: Tokenizer,
    config: TrainTokenizerConfig,
    batches: TokenizerBatches,
    tracker: Tracker,
    ranks: Ranks,
    step: int,
) -> None:
    _restart_codes(tokenizer, config, batches, ranks, step)
    settings = config.tokenizer
    # A sharded model decodes at the end only, when `gathered` has made its layers whole.
    is_sharded = ranks.world > 1 and settings.parallel == "fsdp"
    if step < settings.steps and step in picture_steps(settings.steps) and not is_sharded:
        # In evaluation nothing is drawn at random, and the window of used codes stands still: a
        # picture changes nothing of what is trained.
        tokenizer.eval()
        tracker.image(PICTURE, batches.picture(tokenizer), step)
        tokenizer.train()


def _restart_codes(
    tokenizer: Tokenizer,
    config: TrainTokenizerConfig,
    batches: TokenizerBatches,
    ranks: Ranks,
    step: int,
) -> None:
    every = config.tokenizer.restart_codes_every
    # Not at the end: a code that was just replaced needs steps to settle.
    if every == 0 or step % every or step > RESTARTS_END * config.tokenizer.steps:
        return
    image_BCHW, _ = batches.get(step, ranks.share(config.tokenizer.batch_size))
    generator = torch.Generator().manual_seed(step_seed(config.seed, step, "codebook"))
    with torch.no_grad():
        # Latents of all processes, so that each replaces the same codes by the same latents.
        z_BTC = gather(tokenizer.encode_latents(image_BCHW))
        tokenizer.quantize.restart(z_BTC, generator)
