"""Splits of the data sets as arrays, and the images of each training batch.

Shapes: N images, B batch, V views, H = W image side. Images are uint8 RGB in (N, H, W, 3);
networks take float (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.config import SplitConfig
from gigatok.config.kinds.data_sets import find_data_set
from gigatok.data.crops import UInt8, five_crops, random_crop, ten_crops
from gigatok.data.image_sets import ImageSet, Int64
from gigatok.plugins import owner_of

Augment = Literal["none", "flip", "crop_flip"]


def load_split(config: SplitConfig) -> ImageSet:
    """Load the first `config.images` images of one split, fetched if needed.

    Raises:
        ValueError: the split has fewer images, scikit-learn is missing for the digits, the data
            that the user supplies are not the expected ones, or a plug-in made images of a wrong
            number or type.
        AssetError: the data cannot be obtained.
    """
    # Imported here: parquet is slow to import, and most runs do not need it.
    images: ImageSet = import_module(find_data_set(config.name).module).load(config)
    # Floats would train without an error, on nonsense. The built-in ones are held to it by tests.
    if owner_of("data set", config.name) is not None:
        refuse_wrong_images(images, config)
    return images


def refuse_wrong_images(images: ImageSet, config: SplitConfig) -> None:
    """Raise `ValueError` if a data set gives other images than it was asked for."""
    side, title = config.image_size, f"data set {config.name}, {config.split}"
    labels, first = np.asarray(images.labels), images.centred(np.arange(1))
    if len(images) != config.images or labels.shape != (config.images,):
        raise ValueError(
            f"{title}: {len(images)} images and labels of shape {labels.shape} where "
            f"{config.images} were asked for"
        )
    if first.shape != (1, side, side, 3) or first.dtype != np.uint8:
        raise ValueError(
            f"{title}: an image is {first.dtype} {first.shape[1:]}; it must be uint8 "
            f"{(side, side, 3)}"
        )
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < images.num_classes:
        raise ValueError(
            f"{title}: labels are {labels.dtype} from {labels.min()} to {labels.max()}; they must "
            f"be whole numbers from 0 to {images.num_classes - 1}"
        )


def on_host(data: npt.NDArray[Any] | Tensor, device: str) -> Tensor:
    """Put data into memory from which they can be copied to a device at any time."""
    tensor = data if isinstance(data, Tensor) else torch.from_numpy(np.ascontiguousarray(data))
    # Only a copy from pinned memory can overlap with computation. Pinning is itself a copy, so it
    # is best done by the thread that reads.
    return tensor.pin_memory() if device.startswith("cuda") else tensor


def to_device(data: npt.NDArray[Any] | Tensor, device: str) -> Tensor:
    """Copy an array, or what `on_host` made of it, without waiting for the device's work."""
    tensor = data if isinstance(data, Tensor) else on_host(data, device)
    return tensor.to(device, non_blocking=True)


def to_unit_range(images: UInt8 | Tensor) -> Tensor:
    """Convert uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1], channels-last in memory."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    # `permute` moves no data, so the memory stays channels-last, which convolutions prefer.
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> UInt8:
    """Convert network output (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3).

    It computes `clamp(127.5 x + 128, 0, 255)` with a truncating cast, as the reference does
    everywhere (for example in `reconstruction_ddp.py`). That rounds, and inverts `to_unit_range`
    exactly.
    """
    x = (images.detach().float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).cpu().numpy())


def batch_indices(seed: int, step: int, batch_size: int, num_images: int) -> Int64:
    """Return the indices of the images of batch `step` (from 0), (B,).

    It is a pure function of its arguments. Batches walk through one endless sequence of epochs,
    each a fresh permutation, so every image is seen once per epoch even if a batch straddles two.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epoch, offset = np.divmod(position, num_images)
    indices = np.empty(batch_size, np.int64)
    # One or two epochs as a rule, but a batch may be larger than a small set.
    for e in np.unique(epoch):
        here = epoch == e
        indices[here] = _permutation(seed, int(e), num_images)[offset[here]]
    return indices


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_images: int) -> Int64:
    """Return the order of one epoch, (N,); cached because every step of the epoch needs it."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(num_images)


def batch_flips(seed: int, step: int, batch_size: int) -> npt.NDArray[np.bool_]:
    """Choose the images of batch `step` to mirror, each with probability 1/2, (B,)."""
    return np.random.default_rng((_FLIPS, seed, step)).random(batch_size) < 0.5


def batch_crops(seed: int, step: int, batch_size: int) -> npt.NDArray[np.float64]:
    """Draw the numbers in [0, 1) that choose the random crops of batch `step`, (B, 3)."""
    return np.random.default_rng((_CROPS, seed, step)).random((batch_size, 3))


_ORDER, _FLIPS, _CROPS = 0, 1, 2
"""First words of the random seeds, so that order, flips and crops are independent."""


def training_batch(
    images: ImageSet, side: int, augment: Augment, seed: int, step: int, size: int, part: slice
) -> tuple[UInt8, Int64, npt.NDArray[np.bool_]]:
    """Return one part of training batch `step` (from 0): a pure function of its arguments.

    Args:
        images: the training set.
        side: S.
        augment: `crop_flip` takes ADM random crops, else centre crops are taken; both that and
            `flip` mirror half of them.
        seed: seed of the trial.
        step: number of the batch.
        size: size of the whole batch.
        part: samples of the batch to return, as a micro-batch or a process takes.

    Returns:
        Pixels (B, S, S, 3), the indices of the images (B,), and the mirrored ones (B,).
    """
    # Drawn for the whole batch and then cut: a sample is the same however many processes share it.
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
    """Make the views of some images for code extraction, (V, B, S, S, 3).

    One crop is the centre. Five are the corners and the centre of the original at 1.1 times the
    side. With `flip`, those of the mirrored image follow, as in the reference's
    `extract_codes_c2i.py`.
    """
    if crops == 1:
        views = images.centred(indices)[None]
        return np.concatenate([views, views[:, :, :, ::-1]]) if flip else views
    cut = ten_crops if flip else five_crops
    return images.cropped(indices, lambda image, _: cut(image, side)).swapaxes(0, 1)
