"""Names of what each stage measures, as far as a trial's config decides it. Imports no torch.

Searches are checked against these before anything runs: an objective that no stage measures would
spend the whole budget. A test compares them with what the stages of a real run left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gigatok.config import TrialConfig
from gigatok.names import TRAIN_PREFIX

Names = Callable[[TrialConfig], Iterator[str]]


def scores_of(stage: str, trial: TrialConfig) -> tuple[str, ...]:
    """Final scores of a stage of a trial."""
    return tuple(_SCORES[stage](trial)) if stage in _SCORES else ()


def curves_of(stage: str, trial: TrialConfig) -> tuple[str, ...]:
    """Curves that a training stage of a trial logs, such as `train/loss`."""
    names = _CURVES[stage](trial) if stage in _CURVES else ()
    return tuple(TRAIN_PREFIX + name for name in names)


def _tokenizer(trial: TrialConfig) -> Iterator[str]:
    yield from ("params_total", "params_encoder", "params_decoder", "params_head")


def _reconstruction(trial: TrialConfig) -> Iterator[str]:
    yield from ("rfid", "rkid", "rkid_se", "psnr", "ssim", "ssim_reference", "effective_rank")
    if trial.evaluation.network == "inception":  # the only network with spatial features
        yield "rsfid"
    if trial.evaluation.lpips_network != "none":
        yield "lpips"


def _codes(trial: TrialConfig) -> Iterator[str]:
    yield from ("codebook_usage", "codebook_perplexity")
    yield from ("unigram_entropy", "bigram_entropy", "trigram_entropy")


def _generator(trial: TrialConfig) -> Iterator[str]:
    yield from ("params_generator", "ar_val_loss", "ar_train_loss", "ar_bits_per_image")


def _generation(trial: TrialConfig) -> Iterator[str]:
    # Statistics of a reference file may come without images, which KID and recall need, and the
    # classifier of the Inception Score may be missing: a file on another machine cannot be asked.
    yield from ("gfid", "gkid", "gkid_se", "precision", "recall")
    if trial.evaluation.network == "inception":
        yield from ("gsfid", "inception_score")


def _guidance(trial: TrialConfig) -> Iterator[str]:
    yield from ("best_cfg_scale", "gfid_best", "gkid_best", "gkid_best_se")


_SCORES: dict[str, Names] = {
    "train_tokenizer": _tokenizer,
    "adopt_tokenizer": _tokenizer,
    "evaluate_reconstruction": _reconstruction,
    "extract_codes": _codes,
    "train_generator": _generator,
    "adopt_generator": _generator,
    "evaluate_generation": _generation,
    "search_guidance": _guidance,
    "linear_probe": lambda trial: iter(("probe_accuracy",)),
    "probe_tokenizer": lambda trial: iter(("tokenizer_probe_accuracy",)),
}


def _every_training(trial: TrialConfig) -> Iterator[str]:
    yield from ("loss", "grad_norm", "lr", "images_per_second")


def _tokenizer_training(trial: TrialConfig) -> Iterator[str]:
    tokenizer = trial.tokenizer
    yield from _every_training(trial)
    yield from ("reconstruction_loss", "vq_loss", "commitment_loss", "codebook_usage")
    for name, weight in (
        ("perceptual_loss", tokenizer.perceptual_weight),
        ("semantic_loss", tokenizer.semantic_weight),
        ("entropy_loss", tokenizer.entropy_weight),
    ):
        if weight:
            yield name
    if tokenizer.shortcut_end > 1:  # steps count from 1, and the last is before the end
        yield "shortcut_feature_loss"
        if tokenizer.shortcut_images:
            yield "shortcut_reconstruction_loss"
            yield from ("shortcut_perceptual_loss",) if tokenizer.perceptual_weight else ()
    if tokenizer.discriminator != "none" and tokenizer.discriminator_start <= tokenizer.steps:
        yield from _adversarial(trial)


def _adversarial(trial: TrialConfig) -> Iterator[str]:
    yield "adversarial_loss"
    if trial.tokenizer.adaptive_adversarial_weight:
        yield "adaptive_weight"
    own = ["loss", "grad_norm", "real_logit", "fake_logit"]
    own += ["lecam"] if trial.tokenizer.lecam_weight else []
    yield from (f"discriminator_{name}" for name in own)


_CURVES: dict[str, Names] = {
    "train_tokenizer": _tokenizer_training,
    "train_generator": _every_training,
}
