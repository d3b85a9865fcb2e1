"""Images as arrays, and which of them make up a batch.

Shapes: N images, B batch, V views, H = W image side. Images are uint8 RGB in (N, H, W, 3);
networks take float (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.config import SplitConfig
from gigatok.data import cifar10
from gigatok.data.assets import fetch
from gigatok.data.crops import UInt8, five_crops, random_crop, ten_crops
from gigatok.data.fingerprints import data_fingerprint
from gigatok.data.image_sets import Images, ImageSet, Int64, check_count

Augment = Literal["none", "flip", "crop_flip"]

DIGITS_TRAIN = 1437
"""Of the 1,797 digits; the other 360 are the validation split."""
_DIGITS_ORDER_SEED = 0


def load_split(config: SplitConfig) -> ImageSet:
    """The first `config.images` images of one split, fetched if need be.

    Raises:
        ValueError: If the split has fewer images, scikit-learn is missing for the digits, or
            the data that the user supplies is not what it should be.
        AssetError: If the data cannot be had.
    """
    return _LOADERS[config.name](config)


def _load_cifar10(config: SplitConfig) -> Images:
    """CIFAR-10: the 50,000 training images, or the 10,000 test images as `val`."""
    train = config.split == "train"
    check_count(config, cifar10.TRAIN if train else cifar10.VAL)
    start = 0 if train else cifar10.TRAIN
    images, labels = cifar10.read_records(fetch("cifar10"), start, config.images)
    return Images(images, labels.astype(np.int64), cifar10.NUM_CLASSES, config.image_size)


def _load_digits(config: SplitConfig) -> Images:
    """scikit-learn's 8x8 digits as RGB, in one fixed random order: 1,437 train, then 360 val."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "data.name digits needs scikit-learn: pip install 'gigatok-scaling[digits]'"
        ) from error
    digits = load_digits()
    grey_NHW = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.int64)
    content = hashlib.sha256(grey_NHW.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if content != data_fingerprint("digits"):
        raise ValueError(f"scikit-learn's digits have changed: sha256 {content}")
    order = np.random.RandomState(_DIGITS_ORDER_SEED).permutation(len(labels))
    part = order[:DIGITS_TRAIN] if config.split == "train" else order[DIGITS_TRAIN:]
    check_count(config, len(part))
    chosen = part[: config.images]
    bytes_NHW = (grey_NHW[chosen].astype(np.uint16) * 255 // 16).astype(np.uint8)
    originals = np.repeat(bytes_NHW[..., None], 3, axis=-1)
    return Images(originals, labels[chosen], 10, config.image_size)


def _load_imagenet(config: SplitConfig) -> ImageSet:
    """ImageNet from the user's copy; imported late because parquet is slow to import."""
    from gigatok.data.imagenet import load_imagenet

    return load_imagenet(config)


_LOADERS: dict[str, Callable[[SplitConfig], ImageSet]] = {
    "cifar10": _load_cifar10,
    "digits": _load_digits,
    "imagenet": _load_imagenet,
}


def to_device(array: npt.NDArray[Any], device: str) -> Tensor:
    """Copy to a device without waiting for what it is computing."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_unit_range(images: UInt8 | Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1], channels-last in memory."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> UInt8:
    """Network output (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3).

    `clamp(127.5 x + 128, 0, 255)` and a truncating cast, as the reference does everywhere: it
    rounds, and inverts `to_unit_range` exactly.
    """
    x = (images.detach().float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).cpu().numpy())


def batch_indices(seed: int, step: int, batch_size: int, num_images: int) -> Int64:
    """Which images batch `step` (from 0) holds: a pure function of its arguments, (B,).

    Batches walk through one endless sequence of epochs, each a fresh permutation, so every image
    is seen once per epoch even where a batch straddles two.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epoch, offset = np.divmod(position, num_images)
    indices = np.empty(batch_size, np.int64)
    for e in np.unique(epoch):
        here = epoch == e
        indices[here] = _permutation(seed, int(e), num_images)[offset[here]]
    return indices


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_images: int) -> Int64:
    """The order of one epoch; cached because every step of the epoch asks for it."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(num_images)


def batch_flips(seed: int, step: int, batch_size: int) -> npt.NDArray[np.bool_]:
    """Which images of batch `step` are mirrored, each with probability 1/2, (B,)."""
    return np.random.default_rng((_FLIPS, seed, step)).random(batch_size) < 0.5


def batch_crops(seed: int, step: int, batch_size: int) -> npt.NDArray[np.float64]:
    """What chooses the random crop of each image of batch `step`: (B, 3) in [0, 1)."""
    return np.random.default_rng((_CROPS, seed, step)).random((batch_size, 3))


_ORDER, _FLIPS, _CROPS = 0, 1, 2
"""First words of the random seeds, so that order, flips and crops are independent."""


def training_batch(
    images: ImageSet, side: int, augment: Augment, seed: int, step: int, size: int, part: slice
) -> tuple[UInt8, Int64, npt.NDArray[np.bool_]]:
    """One part of batch `step` (from 0) of training: a pure function of its arguments.

    Args:
        images: the training set.
        side: S.
        augment: `crop_flip` takes ADM random crops, else centre crops; both that and `flip`
            mirror half of them.
        seed: of the trial.
        step: which batch.
        size: of the whole batch.
        part: which of its samples, as a micro-batch or a process takes.

    Returns:
        Pixels (B, S, S, 3), the indices of the images (B,), and which are mirrored (B,).
    """
    indices = batch_indices(seed, step, size, len(images))[part]
    if augment == "crop_flip":
        draws = batch_crops(seed, step, size)[part]
        pixels = images.cropped(indices, lambda image, i: random_crop(image, side, draws[i]))
    else:
        pixels = images.centred(indices)
    flips = np.zeros(len(indices), bool)
    if augment != "none":
        flips = batch_flips(seed, step, size)[part]
        pixels = np.where(flips[:, None, None, None], pixels[:, :, ::-1], pixels)
    return pixels, indices, flips


def crop_views(
    images: ImageSet, indices: Int64, side: int, crops: Literal[1, 5], flip: bool
) -> UInt8:
    """Views of some images for code extraction, (V, B, S, S, 3).

    One crop is the centre. Five are the corners and the centre of the original at 1.1 times the
    side. With `flip` those of the mirrored image follow (ten-crop, spec 6.3).
    """
    if crops == 1:
        views = images.centred(indices)[None]
        return np.concatenate([views, views[:, :, :, ::-1]]) if flip else views
    cut = ten_crops if flip else five_crops
    return images.cropped(indices, lambda image, _: cut(image, side)).swapaxes(0, 1)
