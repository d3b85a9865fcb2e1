"""The scale `paper` against the authors' settings (spec 5.4, 5.3; GigaTok Table 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gigatok.config import TokenizerConfig
from orchestration.sweep import expand, load_sweep

COMMON: dict[str, Any] = {
    "num_latent_tokens": 256,
    "codebook_size": 16384,
    "codebook_dim": 8,
    "commitment_weight": 0.25,
    "semantic_weight": 0.5,
    "semantic_layer": 3,
    "teacher": "dinov2",
    "rotation_trick": True,
    "reconstruction_weight": 1.0,
    "perceptual_weight": 1.0,
    "perceptual_network": "vgg",
    "lr": 1e-4,
    "min_lr": 1e-5,
    "schedule": "cosine",
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 1e-4,
    "decay_norms_and_biases": True,
    "grad_clip": 10,
    "ema_decay": 0.0,
    "discriminator": "patchgan",
    "discriminator_start": 20_000,
    "adversarial_weight": 0.5,
    "adversarial_loss": "hinge",
    "adaptive_adversarial_weight": False,
    "lecam_weight": 0.0,
    "shortcut_feature_loss": "mse",
    "shortcut_feature_weight": 1.0,
    "reference_schedule_quirk": True,
    "reference_perceptual_quirk": True,
    "init": "reference",
    "codebook_init": "uniform",
    "dead_code_restart_every": 0,
}
COLUMNS = (
    "batch_size", "steps", "warmup_steps", "entropy_weight", "shortcut_end", "shortcut_images",
    "transformer_layer", "precision",
)  # fmt: skip
ROWS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("S-S", "1d"): (128, 1_000_000, 0, 0.0, 15_000, True, "vit", "fp16"),
    ("S-B", "1d"): (128, 2_000_000, 0, 0.0, 15_000, True, "vit", "fp16"),
    ("B-L", "1d"): (256, 1_000_000, 0, 0.0, 15_000, True, "vit", "fp16"),
    ("XL-XXL", "1d"): (256, 1_500_000, 5_000, 0.005, 0, False, "vit", "bf16"),
    ("S-S", "2d"): (128, 1_000_000, 0, 0.0, 15_000, True, "qformer", "fp16"),
    ("S-B", "2d"): (128, 2_000_000, 0, 0.0, 15_000, True, "vit", "fp16"),
    ("B-L", "2d"): (256, 1_000_000, 0, 0.005, 15_000, True, "vit", "fp16"),
}


def recipe(tmp_path: Path, pair: str, variant: str) -> TokenizerConfig:
    encoder, decoder = pair.split("-")
    file = tmp_path / "one.yaml"
    file.write_text(
        "question: q\nscale: paper\n"
        f"axes: {{tokenizer.encoder: [{encoder}], tokenizer.decoder: [{decoder}]}}\n"
        f"set: {{tokenizer.variant: {variant}}}\n"
    )
    (trial,) = expand(load_sweep(file)).trials
    return trial.config.tokenizer


@pytest.mark.parametrize(("pair", "variant"), ROWS)
def test_recipe(tmp_path: Path, pair: str, variant: str) -> None:
    config = recipe(tmp_path, pair, variant)
    expected = COMMON | dict(zip(COLUMNS, ROWS[pair, variant], strict=True))
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_game_never_overlaps_the_shortcut(tmp_path: Path) -> None:
    for pair, variant in ROWS:
        config = recipe(tmp_path, pair, variant)
        assert config.shortcut_end < config.discriminator_start
