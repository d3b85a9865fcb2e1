"""The scale `paper`, and each sweep at it, against what the authors trained.

Sources: GigaTok (arXiv 2504.08736v2), Tables 1 to 10 and Figures 3 to 12, and the authors'
configuration files and scripts. An *epoch* is 1.28 M images, as in those scripts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gigatok.config import GuidanceConfig, TokenizerConfig, TransformerSize, TrialConfig
from orchestration.sweep.definition import SWEEPS_DIR, Trial, expand, load_sweep

EPOCH = 1_280_000

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
    ("S-L", "1d"): (256, 1_000_000, 0, 0.0, 15_000, True, "vit", "fp16"),
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


# Table 1 and, for generators, Table 8: width, blocks, heads.
SIZES = {
    "S": (512, 6, 8), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
}  # fmt: skip
GENERATORS = {name: SIZES[name] for name in ("B", "L", "XL", "XXL")}

AR_PROBE: dict[str, Any] = {
    "size": "B", "steps": 250_000, "batch_size": 256, "lr": 1e-4, "schedule": "constant",
    "warmup_steps": 0, "weight_decay": 0.05, "decay_norms_and_biases": False, "grad_clip": 1,
    "dropout": 0.1, "class_dropout": 0.1, "precision": "fp16", "position": "learned",
}  # fmt: skip
"""50 of the 300 epochs of the full schedule, so without its decay (the authors' probe script)."""
LONG = {**AR_PROBE, "schedule": "wsd", "wsd_decay_fraction": 0.2}
LONG_B = LONG | {"steps": 1_500_000, "warmup_steps": 5_000}
LONG_XL = LONG_B | {"size": "XL"}
LONG_XXL = LONG | {"size": "XXL", "steps": 750_000, "batch_size": 512, "warmup_steps": 200}
"""300 epochs; the batch and the warm-up of XL are not published, those of B stand in."""

# Sweep -> trials in order: tokenizer, epochs, batch, what varies of it, generator.
Study = list[tuple[str, float, int, dict[str, Any], dict[str, Any]]]


def study(*rows: tuple[str, float, int, dict[str, Any]]) -> Study:
    return [(*row, AR_PROBE) for row in rows]


STUDIES: dict[str, Study] = {
    # Table 2 has S-B after 100 epochs beside S-L after 200; lengths here are of Table 9.
    "decoder_scaling": study(("S-S", 100, 128, {}), ("S-B", 200, 128, {}), ("S-L", 200, 256, {})),
    # Figures 3 (off) and 7 (on). The length without regularisation is not published.
    "tokenizer_scaling": study(
        *(
            (name, epochs, batch, {"semantic_weight": weight})
            for weight in (0, 0.5)
            for name, epochs, batch in (("S-S", 100, 128), ("S-B", 200, 128), ("B-L", 200, 256))
        )
    ),
    # Figure 9; layers and entropy loss of the baseline from its configuration files.
    "tokenizer_1d_vs_2d": study(
        ("S-S", 100, 128, {"variant": "1d", "entropy_weight": 0}),
        ("S-B", 200, 128, {"variant": "1d", "entropy_weight": 0}),
        ("B-L", 200, 256, {"variant": "1d", "entropy_weight": 0}),
        ("S-S", 100, 128, {"variant": "2d", "transformer_layer": "qformer", "entropy_weight": 0}),
        ("S-B", 200, 128, {"variant": "2d", "transformer_layer": "vit", "entropy_weight": 0}),
        ("B-L", 200, 256, {"variant": "2d", "transformer_layer": "vit", "entropy_weight": 0.005}),
    ),
    # Figure 5; the recipe of Table 9.
    "entropy_loss": study(
        ("XL-XXL", 300, 256, {"entropy_weight": 0, "dead_code_restart_every": 0}),
        ("XL-XXL", 300, 256, {"entropy_weight": 0.005, "dead_code_restart_every": 0}),
    ),
    # Table 10 and, for XL, the table of larger generators in the authors' README.
    "generator_scaling": [
        ("S-S", 100, 128, {}, LONG_B),
        ("S-B", 200, 128, {}, LONG_B),
        ("B-L", 200, 256, {}, LONG_B),
        ("B-L", 200, 256, {}, LONG_XL),
        ("B-L", 200, 256, {}, LONG_XXL),
        ("XL-XXL", 300, 256, {"entropy_weight": 0.005}, LONG_B),
        ("XL-XXL", 300, 256, {"entropy_weight": 0.005}, LONG_XXL),
    ],
    # Table 5.
    "semantic_layer": study(*(("S-S", 100, 128, {"semantic_layer": n}) for n in (2, 3, 4))),
    # Table 6: CLIP (DFN), SigLIP-400M, DINOv2-B.
    "semantic_teacher": study(
        *(("S-B", 200, 128, {"teacher": name}) for name in ("clip_dfn", "siglip", "dinov2"))
    ),
    # Table 7.
    "semantic_weight": study(
        *(("S-S", 100, 128, {"semantic_weight": weight}) for weight in (0.25, 0.5, 0.75, 1))
    ),
    # Figure 12.
    "training_duration": study(
        *(
            ("S-S", epochs, 128, {"semantic_weight": weight})
            for epochs in (40, 60, 80, 100, 120)
            for weight in (0, 0.5)
        )
    ),
}


def trials(sweep: str) -> tuple[Trial, ...]:
    return expand(load_sweep(sweep, "paper")).trials


def shape(size: TransformerSize) -> tuple[int, int, int]:
    return size.width, size.layers, size.heads


def test_every_sweep_is_held_against_a_study() -> None:
    ours = {
        "encoder_vs_decoder",
        "iso_flops",
        "learning_rate",
        "optimizer",
        "quantizers",
    }  # questions that the paper does not ask
    assert {path.stem for path in SWEEPS_DIR.glob("*.yaml")} - ours == STUDIES.keys()


@pytest.mark.parametrize("sweep", STUDIES)
def test_trials_are_those_of_the_study(sweep: str) -> None:
    found: Study = []
    for trial, (*_, keys, generator) in zip(trials(sweep), STUDIES[sweep], strict=True):
        tokenizer, probe = trial.config.tokenizer, trial.config.generator
        epochs = tokenizer.steps * tokenizer.batch_size / EPOCH
        own = {key: getattr(tokenizer, key) for key in keys}
        asked = {key: getattr(probe, key) for key in generator} | {"size": probe.size.name}
        found.append((tokenizer.name, epochs, tokenizer.batch_size, own, asked))
    assert found == STUDIES[sweep]


@pytest.mark.parametrize("sweep", STUDIES)
def test_only_what_is_studied_departs_from_the_recipe(sweep: str, tmp_path: Path) -> None:
    for trial in trials(sweep):
        tokenizer = trial.config.tokenizer
        varied = {key.removeprefix("tokenizer.") for key in trial.axes if key != "seed"}
        studied = {key: getattr(tokenizer, key) for key in varied if hasattr(tokenizer, key)}
        published = recipe(tmp_path, tokenizer.name, tokenizer.variant)
        assert tokenizer == published.model_copy(update=studied)


@pytest.mark.parametrize("sweep", STUDIES)
def test_what_all_trials_share(sweep: str) -> None:
    for trial in trials(sweep):
        config = trial.config
        assert (config.data.name, config.data.image_size) == ("imagenet", 256)
        assert config.tokenizer.tokens_per_image(256) == 256
        assert (config.codes.crops, config.codes.flip) == (5, True)
        assert (config.sampling.num_images, config.evaluation.num_images) == (50_000, 50_000)
        assert config.evaluation.reference == "adm_imagenet256"
        assert shape(config.tokenizer.encoder) == SIZES[config.tokenizer.encoder.name]
        assert shape(config.tokenizer.decoder) == SIZES[config.tokenizer.decoder.name]
        assert shape(config.generator.size) == GENERATORS[config.generator.size.name]


def test_scores_are_by_the_published_protocols(tmp_path: Path) -> None:
    """Spec 6.2 and 7: gFID at the best scale of a hill climb, the probe with dropout on."""
    searched = GuidanceConfig(search="hill_climb", objective="gfid", num_images=50_000)
    for trial in trials("decoder_scaling"):
        assert trial.config.guidance == searched
        assert (searched.start, searched.step) == (2.0, 0.25)
        assert trial.config.probe.reference_dropout_quirk
    for trial in trials("generator_scaling"):
        starts = trial.config.guidance.start, trial.config.sampling.cfg_scale
        assert starts[0] == starts[1]


def test_what_the_sharded_trainer_does_not_decay(tmp_path: Path) -> None:
    spared = {pair: recipe(tmp_path, *pair).reference_decay_quirk for pair in ROWS}
    assert {pair for pair, on in spared.items() if on} == {("XL-XXL", "1d")}


def test_recipes_that_are_options(tmp_path: Path) -> None:
    """`VQ_BL256_dino_disc` and `VQ_BL256_train_new`, by the options in sweeps/README.md."""
    file = tmp_path / "one.yaml"
    file.write_text(
        "question: q\nscale: paper\naxes: {tokenizer.encoder: [B], tokenizer.decoder: [L]}\n"
    )
    text = (SWEEPS_DIR / "README.md").read_text()
    found = {}
    for name, last in (("dino", "80000`"), ("new", "shortcut_images=false`")):
        first = {"dino": "--set tokenizer.discriminator=dino", "new": "--set tokenizer.rotation"}
        start = text.index(first[name])
        options = text[start : text.index(last, start) + len(last) - 1].split()
        overrides = [word for word in options if word != "--set"]
        (trial,) = expand(load_sweep(file, overrides=overrides)).trials
        found[name] = trial.config.tokenizer
    assert (found["dino"].discriminator, found["dino"].discriminator_start) == ("dino", 80_000)
    new = found["new"]
    assert (new.rotation_trick, new.warmup_steps, new.entropy_weight) == (False, 5000, 0.005)
    assert (new.shortcut_images, new.shortcut_end) == (False, 15_000)


def test_guidance() -> None:
    # The probe's is constant; the long runs are guided after 18 % of the tokens, XXL not at all.
    def guidance(config: TrialConfig) -> tuple[str, float, float]:
        sampling = config.sampling
        return sampling.cfg_schedule, sampling.cfg_start, sampling.cfg_scale

    assert {guidance(trial.config) for trial in trials("semantic_layer")} == {
        ("constant", 0.18, 2.0)
    }
    for trial in trials("generator_scaling"):
        scale = {"B": 2.5, "XL": 1.25, "XXL": 1.0}[trial.config.generator.size.name]
        assert guidance(trial.config) == ("step", 0.18, scale)
