"""Linear probe on the generator's middle layer: what its features know of the class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.data.archives.streamed import StreamProgress, open_streamed
from gigatok.models.generator.base import Generator
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.scores.probe import ProbeData, ReadFeatures, describe_training, train_probe
from gigatok.stages.linear_probe.cost import middle_layer
from gigatok.stages.linear_probe.spec import LinearProbeConfig
from gigatok.stages.models import generator_of
from gigatok.training.saved import Codes, load_generator
from gigatok.training.seeds import step_seed

BATCH = 256  # images per forward pass


def run(
    config: LinearProbeConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Train a linear classifier on frozen features. Metric: validation top-1 accuracy.

    The reference draws a random crop of each image in every epoch; here views are those of the
    codes. Features are computed once, but with `probe.reference_dropout_quirk`.
    """
    codes = Codes.load(inputs["extract_codes"])
    generator = load_generator(generator_of(inputs), runtime.device)
    layer = config.probe.layer or middle_layer(generator.depth)
    # Before `_with_dropout` puts the generator into training mode.
    val_parts = [f for _, f in _features(generator, codes.val, layer, runtime)]
    if config.probe.reference_dropout_quirk:
        read = _with_dropout(generator, codes.train, layer, config.seed, runtime)
    else:
        read = _kept(generator, codes.train, layer, tracker, runtime)
    probed = ProbeData(
        read=read,
        views=len(codes.train),
        labels_N=codes.train_labels,
        val_MD=torch.cat(val_parts),
        val_labels_M=codes.val_labels.to(runtime.device),
        num_classes=codes.num_classes,
    )
    accuracy = train_probe(probed, config.probe, config.seed, tracker, runtime)
    dropout = ", generator's dropout on" * config.probe.reference_dropout_quirk
    protocol = (
        f"layer {layer} of {generator.depth}, null class, mean over tokens, "
        f"{len(codes.val)} val images, {describe_training(config.probe)}, "
        f"{len(codes.train)} fixed views{dropout}"
    )
    return Scores({"probe_accuracy": accuracy}, {"probe_accuracy": protocol})


def _kept(
    generator: Generator, codes_VNT: Tensor, layer: int, tracker: Tracker, runtime: Runtime
) -> ReadFeatures:
    """Compute features of all views once, into a file: ten views of ImageNet take 39 GB."""
    views, images, _ = codes_VNT.shape
    # (V, N, D), one vector per image: the mean over tokens.
    config = generator.config
    shape = (views, images, config.architecture.probed_width(config))
    path = runtime.checkpoint_dir / "features.safetensors"
    arrays = open_streamed(path, {"train": ("float32", shape)})
    batches = math.ceil(images / BATCH)

    def piece(number: int) -> list[npt.NDArray[Any]]:
        view, start = number // batches, number % batches * BATCH
        return [arrays["train"][view, start : start + BATCH]]

    progress = StreamProgress(runtime.checkpoint_dir, arrays, piece)
    # Progress is kept by whole views.
    for view in range(progress.read() // batches, views):
        for part, features in _features(generator, codes_VNT[view], layer, runtime):
            arrays["train"][view, part] = features.cpu().numpy()
            tracker.progress(view * images + part.stop, views * images, "image")
        tracker.sync()
        progress.save((view + 1) * batches)
    train_VND = torch.from_numpy(arrays["train"])
    return lambda view, batch: train_VND[view, batch]


def _with_dropout(
    generator: Generator, codes_VNT: Tensor, layer: int, seed: int, runtime: Runtime
) -> ReadFeatures:
    """Make a reader that computes features anew each time, with the dropout of training."""
    # Dropout draws from the global generator, which is seeded so that a probe can be repeated.
    torch.manual_seed(step_seed(seed, 0, "probe"))
    generator.train()

    def read(view: Tensor, batch: Tensor) -> Tensor:
        parts = _features(generator, codes_VNT[view, batch], layer, runtime)
        # Cloned: tensors of inference mode cannot take part in training.
        return torch.cat([features for _, features in parts]).clone()

    return read


def _features(
    generator: Generator, codes_NT: Tensor, layer: int, runtime: Runtime
) -> Iterator[tuple[slice, Tensor]]:
    """Average the residual stream after a layer over positions, a part of the images at a time."""
    starts = range(0, len(codes_NT), BATCH)
    for start in runtime.until_stopped(starts, "features of finished views are kept"):
        part = slice(start, min(start + BATCH, len(codes_NT)))
        with torch.inference_mode():
            codes_BT = codes_NT[part].long().to(runtime.device)
            # (B, T, D) -> (B, D).
            features_BD = generator.features(codes_BT, layer).mean(1)
        yield part, features_BD
