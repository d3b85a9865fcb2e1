"""FLOPs and disk of whole stages, run at the smallest size."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch.utils import module_tracker

from gigatok.config import TokenizerProbeConfig, TrialConfig
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.runtime.context import Runtime
from gigatok.runtime.tracker import NullTracker
from gigatok.stages import STAGES
from gigatok.stages.train_tokenizer.cost import codebook_init_images
from tests.gigatok.counted_flops import NARROW, counted

TOLERANCE = 0.02


TRIAL = TrialConfig.model_validate(
    {
        "data": {"name": "digits", "image_size": 16, "train_images": 64, "val_images": 32},
        "tokenizer": {
            **{"encoder": {"width": 32, "layers": 1, "heads": 1}, "semantic_layer": 1},
            **{"decoder": {"width": 32, "layers": 2, "heads": 2}, "num_latent_tokens": 8},
            "cnn": {"channels": 16, "multipliers": (1, 2), "resblocks": 1, "groups": 4},
            **{"codebook_size": 64, "usage_window": 128, "perceptual_weight": 0},
            **{"teacher": "pixels", "init": "fan_in", "codebook_init": "data"},
            **{"dead_code_restart_every": 2, "shortcut_end": 3, "shortcut_images": True},
            **{"steps": 5, "batch_size": 8, "lr": 1e-3, "checkpoint_every": 2},
        },
        "generator": {"size": NARROW, "steps": 3, "batch_size": 8, "lr": 1e-3},
        "sampling": {"num_images": 8},
        "evaluation": {
            **{"num_images": 32, "network": "pixels", "resolution": 8},
            "lpips_network": "none",
        },
        "probe": {"epochs": 2, "warmup_epochs": 0, "batch_size": 32},
        "tokenizer_probe": {"features": "encoder"},
    }
)


class _NoHandle:
    def remove(self) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["1d", "2d"])
@pytest.mark.parametrize("features", ["encoder", "latents", "decoder"])
def test_what_the_tokenizers_probe_reads(
    features: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As below.
    monkeypatch.setattr(
        module_tracker, "register_multi_grad_hook", lambda *args, **kwargs: _NoHandle()
    )
    config = TRIAL.tokenizer.model_copy(update={"variant": variant})
    trial = TRIAL.model_copy(
        update={
            "tokenizer": config,
            "tokenizer_probe": TokenizerProbeConfig.model_validate({"features": features}),
            "probe": TRIAL.probe.model_copy(update={"epochs": 0}),
        }
    )
    model = GigaTok(config, 16, 12, 4).eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        found = counted(lambda: model.probe_features(image, features))
        width = model.probe_features(image, features).shape[1]
    data = trial.data
    images = 2 * data.train_images + data.val_images  # mirrored ones too
    head = 2 * width * data.num_classes * data.val_images
    assert found > 0
    assert STAGES["probe_tokenizer"].costs.flops(trial) == images * found + head
    assert trial.tokenizer.probed_width(features) == width


def test_a_codebook_is_drawn_from_as_many_images_as_it_has_codes() -> None:
    few, many = (
        TRIAL.tokenizer.model_copy(update={"codebook_size": codes}) for codes in (64, 16384)
    )
    assert codebook_init_images(few, 16) == 256
    assert codebook_init_images(many, 16) * many.tokens_per_image(16) == 16384


@pytest.mark.slow
def test_whole_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in order, each is counted; what it leaves on disk is as long as was said."""
    # The counter's attribution to modules fails on views of parameters without gradients.
    monkeypatch.setattr(
        module_tracker, "register_multi_grad_hook", lambda *args, **kwargs: _NoHandle()
    )
    for stage, spec in STAGES.items():
        if not spec.applies(TRIAL):
            continue
        run = importlib.import_module(f"gigatok.stages.{stage}.run").run
        inputs = {name: tmp_path / name for name in spec.inputs_of(TRIAL)}
        config, out = spec.read(TRIAL), tmp_path / stage
        runtime = Runtime(tmp_path / "work" / stage)
        found = counted(lambda: run(config, inputs, out, NullTracker(), runtime))  # noqa: B023
        predicted, disk = spec.costs.flops(TRIAL), spec.costs.disk(TRIAL)
        assert predicted == pytest.approx(found, rel=TOLERANCE), stage
        written = sum(f.stat().st_size for f in out.glob("*") if f.is_file())
        # Headers and descriptions come on top.
        assert disk.outputs <= written <= 1.02 * disk.outputs + 25_000, stage
