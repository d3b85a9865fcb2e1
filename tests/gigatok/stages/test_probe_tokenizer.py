"""The linear probe on a tokenizer's own features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from gigatok.config import (
    CNNConfig,
    CodesConfig,
    ProbeConfig,
    ProbedFeatures,
    SplitConfig,
    TokenizerArchitecture,
    TransformerSize,
)
from gigatok.data.archives.streamed import open_streamed
from gigatok.data.splits import load_split, to_unit_range
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.runtime.context import Interrupted, Runtime, Scores
from gigatok.runtime.tracker import MemoryTracker, NullTracker
from gigatok.stages.probe_tokenizer import run as probe_tokenizer
from gigatok.stages.probe_tokenizer.spec import ProbeTokenizerConfig
from gigatok.training.saved import save_tokenizer

FEATURES = [name for name in get_args(ProbedFeatures) if name != "none"]
WIDTHS = {"encoder": 32, "latents": 16, "decoder": 48}
CNN = CNNConfig(channels=8, multipliers=(1, 2), resblocks=1, mid_blocks=0, z_channels=16, groups=4)


def tokenizer(variant: str = "1d") -> GigaTok:
    torch.manual_seed(0)
    architecture = TokenizerArchitecture.model_validate(
        {
            "variant": variant,
            "encoder": TransformerSize(width=32, layers=2, heads=2),
            "decoder": TransformerSize(width=48, layers=2, heads=2),
            "cnn": CNN,
            "num_latent_tokens": 4,
            "codebook_size": 32,
            "usage_window": 64,
            "semantic_weight": 0.0,
            "semantic_layer": 1,
            "init": "fan_in",
        }
    )
    return GigaTok(architecture, 16).eval()


@torch.inference_mode()
@pytest.mark.parametrize("variant", ["1d", "2d"])
def test_features_are_where_they_should_be(variant: str) -> None:
    model, image = tokenizer(variant), torch.rand(2, 3, 16, 16) * 2 - 1
    found = {where: model.probe_features(image, where) for where in FEATURES}
    assert {where: tuple(value.shape) for where, value in found.items()} == {
        where: (2, width) for where, width in WIDTHS.items()
    }
    latents = model.to_tokens(model.encoder(image))
    torch.testing.assert_close(found["latents"], latents.mean(1))
    # A projection of the mean is the mean of the projections.
    torch.testing.assert_close(model.to_tokens.conv_out(found["encoder"]), found["latents"])
    z = model.post_quant_conv(model.quantize.get_codebook_entry(model.encode(image)))
    stream = model.to_grid(z, stream_after=1)[1]
    assert stream is not None
    torch.testing.assert_close(found["decoder"], stream.mean(1))


def probe(folder: Path, features: str, tracker: Any = None, **options: Any) -> Scores:
    splits = {
        split: SplitConfig(name="digits", split=split, image_size=16, images=images)
        for split, images in (("train", 300), ("val", 200))
    }
    config = ProbeTokenizerConfig.model_validate(
        {
            **splits,
            "codes": CodesConfig(flip=False),
            "features": features,
            "probe": ProbeConfig(epochs=100, lr=12.8, batch_size=64, warmup_epochs=2),
            "seed": 0,
        }
    )
    save_tokenizer(folder, tokenizer())
    runtime = Runtime(folder / "checkpoints", **options)
    inputs = {"adopt_tokenizer": folder}
    return probe_tokenizer.run(config, inputs, folder / "out", tracker or NullTracker(), runtime)


@pytest.mark.heavy
@pytest.mark.parametrize("features", FEATURES)
def test_random_features_know_something_of_digits(tmp_path: Path, features: str) -> None:
    tracker = MemoryTracker()
    scores = probe(tmp_path, features, tracker)
    accuracy = scores.metrics["tokenizer_probe_accuracy"]
    assert 0.2 < accuracy < 1, "chance is 0.1"
    assert accuracy * 200 == pytest.approx(round(accuracy * 200), abs=1e-3)
    assert features in scores.protocol["tokenizer_probe_accuracy"]
    assert "200 val images of digits@16" in scores.protocol["tokenizer_probe_accuracy"]
    assert max(step for name, step, _ in tracker.points if name == "train/loss") == 100


@pytest.mark.heavy
def test_features_of_the_right_images_are_trained_on(tmp_path: Path) -> None:
    probe(tmp_path, "latents")
    kept = open_streamed(
        tmp_path / "checkpoints" / "features.safetensors", {"train": ("float32", (1, 300, 16))}
    )["train"]
    split = SplitConfig(name="digits", split="train", image_size=16, images=300)
    images = load_split(split)
    picked = torch.tensor([0, 127, 128, 299]).numpy()
    with torch.inference_mode():
        image = to_unit_range(images.centred(picked))
        expected = tokenizer().probe_features(image, "latents")
    torch.testing.assert_close(torch.from_numpy(kept[0, picked]), expected, atol=1e-5, rtol=1e-4)


def test_it_stops_on_request(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="starts over"):
        probe(tmp_path, "encoder", should_stop=lambda: True)
