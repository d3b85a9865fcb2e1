"""Linear probe on the generator's middle layer: what its features know of the class (spec 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gigatok.models.generator import Generator
from gigatok.probe import describe_training, train_probe
from gigatok.saved import Codes, load_generator
from gigatok.stages import Interrupted, LinearProbeConfig, Runtime, Scores, generator_of
from gigatok.streamed import open_streamed
from gigatok.tracker import Tracker

BATCH = 256


def run(
    config: LinearProbeConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Train a linear classifier on frozen features. Metric: validation top-1 accuracy.

    The reference leaves the generator's dropout on while it trains the probe; here features are
    computed once without dropout.
    """
    codes = Codes.load(inputs["extract_codes"])
    generator = load_generator(generator_of(inputs), runtime.device)
    layer = config.probe.layer or len(generator.layers) // 2
    views, images, _ = codes.train.shape
    # Ten views of ImageNet are 39 GB: they live in a file.
    width = generator.config.size.width
    train_VND = open_streamed(
        runtime.checkpoint_dir / "features.safetensors",
        {"train": ("float32", (views, images, width))},
    )["train"]
    for view in range(views):
        for part, features in _features(generator, codes.train[view], layer, runtime):
            train_VND[view, part] = features.cpu().numpy()
    val_parts = [f for _, f in _features(generator, codes.val, layer, runtime)]
    accuracy = train_probe(
        torch.from_numpy(train_VND),
        codes.train_labels,
        torch.cat(val_parts),
        codes.val_labels.to(runtime.device),
        codes.num_classes,
        config.probe,
        config.seed,
        tracker,
    )
    protocol = (
        f"layer {layer} of {len(generator.layers)}, null class, mean over tokens, "
        f"{len(codes.val)} val images, " + describe_training(config.probe)
    )
    return Scores({"probe_accuracy": accuracy}, {"probe_accuracy": protocol})


def _features(
    generator: Generator, codes_NT: Tensor, layer: int, runtime: Runtime
) -> Iterator[tuple[slice, Tensor]]:
    """Mean over positions of the residual stream after a layer, a part of the images at a time."""
    for start in range(0, len(codes_NT), BATCH):
        if runtime.should_stop():
            raise Interrupted("stopped on request; this stage starts over")
        part = slice(start, min(start + BATCH, len(codes_NT)))
        with torch.inference_mode():
            codes_BT = codes_NT[part].long().to(runtime.device)
            features_BD = generator.features(codes_BT, layer).mean(1)
        yield part, features_BD
