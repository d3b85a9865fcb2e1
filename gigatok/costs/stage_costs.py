"""FLOPs, memory and disk of every stage of a trial: what it makes its networks do, how often.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gigatok.config import ProbedFeatures, TokenizerArchitecture, TrainingConfig, TrialConfig
from gigatok.costs.memory import (
    ADAM_MOMENTS,
    FLOAT,
    generator_training_memory,
    tokenizer_training_memory,
)
from gigatok.costs.training import generator_training_flops, tokenizer_step_flops
from gigatok.models.frozen.layout import feature_flops, lpips_head_flops, lpips_layer, teacher_cost
from gigatok.models.generator.layout import (
    generator_flops,
    generator_parameters,
    sampling_flops,
)
from gigatok.models.judges.layout import judge_layout
from gigatok.models.layers import linear
from gigatok.models.tokenizer.layout import tokenizer_flops, tokenizer_parameters

CODEBOOK_INIT_IMAGES = 256
"""Images whose latents a codebook is initialised from."""
RESTARTS_END = 0.95
"""Dead codes are restarted in this first part of training."""
PICTURED_IMAGES = 8
"""Images that a trained tokenizer reconstructs for its picture."""


def stage_flops(stage: str, trial: TrialConfig) -> float:
    """What a stage of a trial computes in all.

    What numpy computes of features (Gaussians, distances) and PSNR and SSIM are not in it.

    Raises:
        ValueError: no such stage.
    """
    if stage not in STAGE_FLOPS:
        raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGE_FLOPS)}")
    return float(STAGE_FLOPS[stage](trial))


def _train_tokenizer(trial: TrialConfig) -> int:
    config, side = trial.tokenizer, trial.data.image_size
    step = tokenizer_step_flops(config, side, cached_teacher=trial.uses_cached_teacher)
    in_shortcut = min(max(config.shortcut_end - 1, 0), config.steps)
    in_game = max(config.steps - config.discriminator_start + 1, 0)
    per_place = config.steps * (step.tokenizer + step.perceptual + step.teacher)
    per_place += in_shortcut * step.shortcut + in_game * step.game
    parts = tokenizer_flops(config, side)
    latents = CODEBOOK_INIT_IMAGES if config.codebook_init == "data" else 0
    latents = min(latents, trial.data.train_images)
    if config.dead_code_restart_every:
        last = int(RESTARTS_END * config.steps)
        restarts = last // config.dead_code_restart_every
        latents += restarts * config.batch_size
        if not trial.uses_cached_teacher and config.semantic_weight > 0:
            per_place += restarts * step.teacher
    pictures = min(PICTURED_IMAGES, trial.data.train_images) * (parts.encode + parts.decoder)
    return config.batch_size * per_place + latents * parts.encoder + pictures


def _extract_teacher_features(trial: TrialConfig) -> int:
    teacher = teacher_cost(trial.tokenizer.teacher)
    components = trial.tokenizer.teacher_components
    views = 2 if trial.tokenizer.augment == "flip" else 1
    # Covariance of the channels, then their projection.
    reduction = linear(teacher.grid**2, teacher.dim, teacher.dim + components).flops
    per_view = teacher.flops + (reduction if components else 0)
    return views * trial.data.train_images * per_view


def _features(trial: TrialConfig) -> int:
    evaluation = trial.evaluation
    return feature_flops(evaluation.network, evaluation.resolution, trial.data.image_size)


def _evaluate_reconstruction(trial: TrialConfig) -> int:
    parts, network = (
        tokenizer_flops(trial.tokenizer, trial.data.image_size),
        trial.evaluation.lpips_network,
    )
    per_image = parts.encode + parts.decoder + _features(trial)
    if network != "none":
        side = trial.data.image_size
        per_image += 2 * lpips_layer(network, side, side).flops + lpips_head_flops(network)
    return trial.evaluation.num_images * per_image


def _extract_codes(trial: TrialConfig) -> int:
    views = trial.codes.crops * (1 + trial.codes.flip)
    encoded = views * trial.data.train_images + trial.data.val_images
    return encoded * tokenizer_flops(trial.tokenizer, trial.data.image_size).encode


def _train_generator(trial: TrialConfig) -> int:
    config, codes = trial.generator, trial.tokenizer.codebook_size
    tokens = trial.tokenizer.tokens_per_image(trial.data.image_size)
    step = generator_training_flops(
        config, codes, tokens, recompute=config.activation_checkpointing
    )
    return config.steps * config.batch_size * step + _score_generator(trial)


def _score_generator(trial: TrialConfig) -> int:
    """Losses on the validation images and on as many of training."""
    tokens = trial.tokenizer.tokens_per_image(trial.data.image_size)
    scored = trial.data.val_images + min(trial.data.val_images, trial.data.train_images)
    return scored * generator_flops(trial.generator, trial.tokenizer.codebook_size, tokens)


def _search_guidance(trial: TrialConfig) -> int:
    """At most: a scale of 1 costs half, and a hill climb may end sooner."""
    drawn = trial.guidance.most_scales * trial.guidance.num_images + trial.sampling.num_images
    return drawn * _drawn(trial, trial.guidance.high)


def _drawn(trial: TrialConfig, cfg_scale: float) -> int:
    """Draw an image, and compute its features."""
    side, codes = trial.data.image_size, trial.tokenizer.codebook_size
    tokens = trial.tokenizer.tokens_per_image(side)
    per_image = sampling_flops(trial.generator, codes, tokens, guided=cfg_scale > 1)
    return per_image + tokenizer_flops(trial.tokenizer, side).decoder + _features(trial)


def _linear_probe(trial: TrialConfig) -> int:
    size, probe, data = trial.generator.size, trial.probe, trial.data
    tokens = trial.tokenizer.tokens_per_image(data.image_size)
    views = trial.codes.crops * (1 + trial.codes.flip)
    layer = probe.layer or size.layers // 2
    read = generator_flops(trial.generator, trial.tokenizer.codebook_size, tokens, layer)
    head = linear(1, size.width, data.num_classes).flops
    passes = 2 * probe.epochs * data.train_images + data.val_images
    times = probe.epochs if probe.reference_dropout_quirk else views
    return (times * data.train_images + data.val_images) * read + passes * head


def _probe_tokenizer(trial: TrialConfig) -> int:
    """Features of all views, then as `linear_probe`, over the features' width."""
    config, probe, data = trial.tokenizer, trial.probe, trial.data
    views = trial.codes.crops * (1 + trial.codes.flip)
    width = probed_width(config, trial.tokenizer_probe.features)
    head = linear(1, width, data.num_classes).flops
    passes = 2 * probe.epochs * data.train_images + data.val_images
    read = _probed(config, trial.tokenizer_probe.features, data.image_size)
    return (views * data.train_images + data.val_images) * read + passes * head


def probed_width(config: TokenizerArchitecture, features: ProbedFeatures) -> int:
    """Channels of the features that `probe_tokenizer` reads of a tokenizer."""
    widths = {
        "none": 0,
        "encoder": config.encoder.width,
        "latents": config.cnn.z_channels,
        "decoder": config.decoder.width,
    }
    return widths[features]


def _probed(config: TokenizerArchitecture, features: str, image_size: int) -> int:
    """Forward pass of one image up to the features."""
    parts = tokenizer_flops(config, image_size)
    z, tokens = config.cnn.z_channels, config.tokens_per_image(image_size)
    if features == "encoder":
        return parts.cnn_encoder + parts.to_tokens - linear(tokens, config.encoder.width, z).flops
    if features == "latents":
        return parts.cnn_encoder + parts.to_tokens
    # The whole decoder runs, of which the stream after one layer is taken.
    return parts.encode + parts.project_out + parts.to_grid


STAGE_FLOPS: dict[str, Callable[[TrialConfig], int]] = {
    "extract_teacher_features": _extract_teacher_features,
    "extract_reference_features": lambda trial: trial.evaluation.num_images * _features(trial),
    "train_tokenizer": _train_tokenizer,
    "adopt_tokenizer": lambda trial: 0,
    "evaluate_reconstruction": _evaluate_reconstruction,
    "extract_codes": _extract_codes,
    "train_generator": _train_generator,
    "adopt_generator": _score_generator,
    "evaluate_generation": lambda t: t.sampling.num_images * _drawn(t, t.sampling.cfg_scale),
    "search_guidance": _search_guidance,
    "linear_probe": _linear_probe,
    "probe_tokenizer": _probe_tokenizer,
}
"""By stage, with all that it computes."""


@dataclass(frozen=True)
class Disk:
    """Bytes of a stage: `outputs` stay, `working` goes when it is done."""

    outputs: int
    working: int = 0


def stage_disk(stage: str, trial: TrialConfig) -> Disk:
    """What a stage of a trial leaves and needs on disk; logs, curves and pictures are not in it.

    Raises:
        ValueError: no such stage.
    """
    if stage not in STAGE_DISK:
        raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGE_DISK)}")
    return STAGE_DISK[stage](trial)


CHECKPOINTS = 3
"""The two that are kept, and one being written."""
_POOL = {"inception": 2048}
"""Pooled features of a network; of others, the pixels."""


def _trained(config: TrainingConfig, parameters: int, buffers: int = 0, opponent: int = 0) -> Disk:
    """Model, moments and averages in each checkpoint; one that is not due is never written."""
    copies = 1 + ADAM_MOMENTS + (config.ema_decay > 0)
    state = copies * parameters + buffers + (1 + ADAM_MOMENTS) * opponent
    written = min((config.steps - 1) // config.checkpoint_every, CHECKPOINTS)
    return Disk(FLOAT * (parameters + buffers), FLOAT * state * written)


def _tokenizer_disk(trial: TrialConfig) -> Disk:
    config, side = trial.tokenizer, trial.data.image_size
    dim = config.teacher_components or teacher_cost(config.teacher).dim
    parameters = tokenizer_parameters(config, side, dim).total
    opponent = judge_layout(config.discriminator, side).parameters
    return _trained(config, parameters, config.usage_window, opponent)


def _codes_disk(trial: TrialConfig) -> Disk:
    """int16 codes of all views and int64 labels; int32 codes of codebooks beyond 2^15."""
    data, tokens = trial.data, trial.tokenizer.tokens_per_image(trial.data.image_size)
    views = trial.codes.crops * (1 + trial.codes.flip)
    width = 2 if trial.tokenizer.codebook_size <= 2**15 else 4
    codes = width * tokens * (views * data.train_images + data.val_images)
    return Disk(codes + 8 * (data.train_images + data.val_images))


def _generator_disk(trial: TrialConfig) -> Disk:
    tokens = trial.tokenizer.tokens_per_image(trial.data.image_size)
    config, codes = trial.generator, trial.tokenizer.codebook_size
    return _trained(config, generator_parameters(config, codes, trial.data.num_classes, tokens))


def _teacher_disk(trial: TrialConfig) -> Disk:
    """float16 features of all images, and of mirrored ones."""
    teacher = teacher_cost(trial.tokenizer.teacher)
    dim = trial.tokenizer.teacher_components or teacher.dim
    views = 2 if trial.tokenizer.augment == "flip" else 1
    return Disk(2 * views * trial.data.train_images * teacher.grid**2 * dim)


def _pool_bytes(trial: TrialConfig, images: int) -> int:
    evaluation = trial.evaluation
    return FLOAT * images * _POOL.get(evaluation.network, 3 * evaluation.resolution**2)


def _search_disk(trial: TrialConfig) -> Disk:
    """Samples come and go; what stays is the curve, some hundred bytes."""
    count = max(trial.guidance.num_images, trial.sampling.num_images)
    images = count * (3 * trial.data.image_size**2 + 8)
    return Disk(0, 2 * (images + _pool_bytes(trial, count)))


def _samples_disk(trial: TrialConfig) -> Disk:
    count = trial.sampling.num_images
    images = count * (3 * trial.data.image_size**2 + 8)
    return Disk(images, images + _pool_bytes(trial, count))


def _probe_disk(trial: TrialConfig) -> Disk:
    if trial.probe.reference_dropout_quirk:
        return Disk(0)
    views = trial.codes.crops * (1 + trial.codes.flip)
    return Disk(0, FLOAT * views * trial.data.train_images * trial.generator.size.width)


def _tokenizer_probe_disk(trial: TrialConfig) -> Disk:
    width = probed_width(trial.tokenizer, trial.tokenizer_probe.features)
    views = trial.codes.crops * (1 + trial.codes.flip)
    return Disk(0, FLOAT * views * trial.data.train_images * width)


STAGE_DISK: dict[str, Callable[[TrialConfig], Disk]] = {
    "extract_teacher_features": _teacher_disk,
    "extract_reference_features": lambda t: Disk(_pool_bytes(t, t.evaluation.num_images)),
    "train_tokenizer": _tokenizer_disk,
    "adopt_tokenizer": lambda t: Disk(_tokenizer_disk(t).outputs),
    "evaluate_reconstruction": lambda t: Disk(3 * t.data.image_size**2 * t.evaluation.num_images),
    "extract_codes": _codes_disk,
    "train_generator": _generator_disk,
    "adopt_generator": lambda t: Disk(_generator_disk(t).outputs),
    "evaluate_generation": _samples_disk,
    "search_guidance": _search_disk,
    "linear_probe": _probe_disk,
    "probe_tokenizer": _tokenizer_probe_disk,
}
"""By stage."""


def stage_memory(stage: str, trial: TrialConfig, world: int = 1) -> int | None:
    """Peak bytes per device of the tensors of a stage that trains; None where no form is known.

    Args:
        stage: its name.
        trial: its config.
        world: processes that share the stage.
    """
    data = trial.data
    if stage == "train_tokenizer":
        return tokenizer_training_memory(
            trial.tokenizer, data.image_size, world, cached_teacher=trial.uses_cached_teacher
        )
    if stage != "train_generator":
        return None
    tokens, codes = (
        trial.tokenizer.tokens_per_image(data.image_size),
        trial.tokenizer.codebook_size,
    )
    return generator_training_memory(trial.generator, codes, data.num_classes, tokens, world)
