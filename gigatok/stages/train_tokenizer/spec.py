"""The stage that trains a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

from gigatok.config import Config, SplitConfig, TokenizerConfig, TrialConfig
from gigatok.config.kinds.teachers import teacher_assets
from gigatok.names import TRAIN_PREFIX
from gigatok.stages.base import Stage, where_had
from gigatok.stages.extract_teacher_features.spec import EXTRACT_TEACHER_FEATURES
from gigatok.stages.registry import register
from gigatok.stages.train_tokenizer.cost import COSTS
from gigatok.stages.training import TRAINER_CURVES


class TrainTokenizerConfig(Config):
    """Config of `train_tokenizer`: what it reads of a trial."""

    train: SplitConfig
    tokenizer: TokenizerConfig
    seed: int


def _read(trial: TrialConfig) -> TrainTokenizerConfig:
    return TrainTokenizerConfig(
        train=trial.split("train"), tokenizer=trial.tokenizer, seed=trial.seed
    )


def _assets(trial: TrialConfig) -> tuple[str, ...]:
    tokenizer = trial.tokenizer
    names: list[str] = [trial.data.name]
    if tokenizer.perceptual_weight:
        names.append(f"lpips_{tokenizer.perceptual_network}")
    # A cached teacher is read by the stage that makes the cache.
    if tokenizer.semantic_weight and not trial.uses_cached_teacher:
        names += teacher_assets(tokenizer.teacher)
    return tuple(names)


def tokenizer_scores(trial: TrialConfig) -> tuple[str, ...]:
    """Name the scores of a new tokenizer, trained or adopted."""
    return "params_total", "params_encoder", "params_decoder", "params_head"


def _curves(trial: TrialConfig) -> tuple[str, ...]:
    return tuple(TRAIN_PREFIX + name for name in (*TRAINER_CURVES, *_losses(trial)))


def _losses(trial: TrialConfig) -> Iterator[str]:
    tokenizer = trial.tokenizer
    # Always logged, whatever their weights.
    yield from ("reconstruction_loss", "codebook_usage")
    yield from (f"{name}_loss" for name in tokenizer.quantizer.losses(tokenizer))
    for name, weight in (
        ("perceptual_loss", tokenizer.perceptual_weight),
        ("semantic_loss", tokenizer.semantic_weight),
    ):
        if weight:
            yield name
    yield from (f"{loss.name}_loss" for loss in tokenizer.extra_losses)
    if tokenizer.shortcut_end > 1:  # steps count from 1, and the last is before the end
        yield "shortcut_feature_loss"
        if tokenizer.shortcut_images:
            yield "shortcut_reconstruction_loss"
            yield from ("shortcut_perceptual_loss",) if tokenizer.perceptual_weight else ()
    if tokenizer.discriminator != "none" and tokenizer.discriminator_start <= tokenizer.steps:
        yield from _adversarial_losses(tokenizer)


def _adversarial_losses(tokenizer: TokenizerConfig) -> Iterator[str]:
    yield "adversarial_loss"
    if tokenizer.adaptive_adversarial_weight:
        yield "adaptive_weight"
    # The trainer logs the discriminator under its own prefix.
    own = ["loss", "grad_norm", "real_logit", "fake_logit"]
    own += ["lecam"] if tokenizer.lecam_weight else []
    yield from (f"discriminator_{name}" for name in own)


TRAIN_TOKENIZER = register(
    Stage(
        name="train_tokenizer",
        version=2,
        config=TrainTokenizerConfig,
        read=_read,
        module="gigatok.stages.train_tokenizer.run",
        label="tokenizer",
        costs=COSTS,
        # Only where the teacher is cached.
        inputs=where_had(EXTRACT_TEACHER_FEATURES),
        applies=lambda t: t.adopt.tokenizer is None,
        assets=_assets,
        scores=tokenizer_scores,
        curves=_curves,
        model="tokenizer",
        trains=True,
        parallel=True,
    )
)
