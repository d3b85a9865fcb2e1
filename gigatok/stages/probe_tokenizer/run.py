"""Linear probe on the tokenizer: what its own features know of the class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.data.archives.streamed import open_streamed
from gigatok.data.crops import UInt8
from gigatok.data.image_sets import Int64, in_batches, read_ahead
from gigatok.data.splits import crop_views, load_split, to_device, to_unit_range
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.scores.probe import ProbeData, describe_training, train_probe
from gigatok.scores.scoring import describe
from gigatok.stages.models import tokenizer_of
from gigatok.stages.probe_tokenizer.spec import ProbeTokenizerConfig
from gigatok.training.saved import load_tokenizer

BATCH = 128
"""Images whose features are computed at once."""


def run(
    config: ProbeTokenizerConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Train a linear classifier on frozen features. Metric: validation top-1 accuracy.

    The reference draws a random crop in every step; here the views are those of the codes.
    """
    tokenizer = load_tokenizer(tokenizer_of(inputs), runtime.device)
    train, val = load_split(config.train), load_split(config.val)
    codes, side = config.codes, config.train.image_size

    def views(indices: Int64) -> UInt8:
        return crop_views(train, indices, side, codes.crops, codes.flip)

    # Validation images have one view, whose features fit into memory.
    val_MD = torch.empty(len(val), tokenizer.config.probed_width(config.features))
    for part, features_1BD in _features(
        tokenizer, config, lambda i: val.centred(i)[None], len(val), runtime
    ):
        val_MD[part] = torch.from_numpy(features_1BD[0])
    # Ten views of ImageNet are tens of gigabytes: they live in a file.
    # (V, N, D), one vector per image: the mean over tokens.
    shape = (codes.crops * (1 + codes.flip), len(train), val_MD.shape[1])
    path = runtime.checkpoint_dir / "features.safetensors"
    array_VND = open_streamed(path, {"train": ("float32", shape)})["train"]
    for part, features_VBD in _features(tokenizer, config, views, len(train), runtime):
        array_VND[:, part] = features_VBD
        tracker.progress(part.stop, len(train), "image")
    train_VND = torch.from_numpy(array_VND)
    probed = ProbeData(
        # Indexing copies only a batch out of the mapped file.
        read=lambda view, batch: train_VND[view, batch],
        views=len(train_VND),
        labels_N=torch.from_numpy(np.asarray(train.labels)),
        val_MD=val_MD.to(runtime.device),
        val_labels_M=torch.from_numpy(np.asarray(val.labels)).to(runtime.device),
        num_classes=train.num_classes,
    )
    accuracy = train_probe(probed, config.probe, config.seed, tracker, runtime)
    protocol = (
        f"tokenizer's {config.features} features, mean over tokens, {describe(config.val)}, "
        f"{describe_training(config.probe)}, {len(train_VND)} fixed views"
    )
    return Scores({"tokenizer_probe_accuracy": accuracy}, {"tokenizer_probe_accuracy": protocol})


def _features(
    tokenizer: Tokenizer,
    config: ProbeTokenizerConfig,
    read: Callable[[Int64], UInt8],
    count: int,
    runtime: Runtime,
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield features (V, B, D) of all images, with the part of them that they are.

    Raises:
        Interrupted: the stage was asked to stop.
    """
    start = 0
    for views_VBHWC in runtime.until_stopped(read_ahead(read, in_batches(count, BATCH))):
        # (V, B, H, W, 3), one view at a time: ten views at once would be a batch of 1280.
        features = [_of_images(tokenizer, view, config.features, runtime) for view in views_VBHWC]
        part = slice(start, start + views_VBHWC.shape[1])
        yield part, np.stack(features)
        start = part.stop


@torch.inference_mode()
def _of_images(
    tokenizer: Tokenizer, image_BHWC: UInt8, where: str, runtime: Runtime
) -> npt.NDArray[np.float32]:
    # (B, H, W, 3) uint8 -> (B, 3, H, W) in [-1, 1].
    image_BCHW: Tensor = to_unit_range(to_device(image_BHWC, runtime.device))
    features: npt.NDArray[np.float32] = (
        tokenizer.probe_features(image_BCHW, where).float().cpu().numpy()
    )
    return features
