"""Sets of labelled images: all in memory, or decoded when a batch asks for them.

Shapes: N images of the set, B of a batch, S side of a view. Images are uint8 RGB (H, W, 3).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from gigatok.config import SplitConfig
from gigatok.data.crops import UInt8, center_crop

Int64 = npt.NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")
Crop = Callable[[UInt8, int], UInt8]
"""Function of an original (H, W, 3) and its position in the batch; returns one fixed shape."""

DECODERS = min(16, os.cpu_count() or 1)
"""Threads that decode; the result does not depend on their number."""


class ImageSet(Protocol):
    """Protocol of one split of a data set at one image size."""

    @property
    def labels(self) -> Int64:
        """Class of each image, (N,)."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole data set."""

    def __len__(self) -> int:
        """Return N."""

    def centred(self, indices: Int64) -> UInt8:
        """Return the centre crops of some images, (B, S, S, 3)."""

    def cropped(self, indices: Int64, crop: Crop) -> UInt8:
        """Apply `crop` to the original of each of some images, and stack: (B, ...)."""


@dataclass(frozen=True)
class Images:
    """Set that is small enough for memory.

    Attributes:
        originals: images as the data set has them, all of one size, (N, H, W, 3).
        labels: class of each image, (N,).
        num_classes: number of classes of the whole data set.
        side: S.
    """

    originals: UInt8
    labels: Int64
    num_classes: int
    side: int

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def images(self) -> UInt8:
        """All images at the side S, (N, S, S, 3)."""
        return resize(self.originals, self.side)

    def centred(self, indices: Int64) -> UInt8:
        """Return some images at the side S, (B, S, S, 3)."""
        # Square originals: the centre crop is the whole image.
        return self.images[indices]

    def cropped(self, indices: Int64, crop: Crop) -> UInt8:
        """Apply `crop` to the original of each of some images, and stack: (B, ...)."""
        originals = enumerate(self.originals[indices])
        return np.stack([crop(original, position) for position, original in originals])


def resize(images: UInt8, side: int) -> UInt8:
    """Resize square images (N, H, H, 3) to (N, S, S, 3) by Pillow's antialiased bicubic filter.

    Images that have the side already are returned as they are.
    """
    if images.shape[1] == images.shape[2] == side:
        return images
    resized = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        for image in images
    ]
    return np.stack(resized)


class EncodedImages:
    """Set of image files, which a pool of threads reads and decodes when a batch asks.

    Reading raises `ValueError` that names the image if it is damaged or not an image.

    Args:
        read: returns image i of the source, decoded: (H, W, 3).
        rows: numbers of the set's images in the source, in the set's order, (N,).
        labels: class of each image of the set, (N,).
        num_classes: number of classes of the whole data set.
        side: S.
        describe: says in words where a person finds image i of the source.
        advice: says what to do about an image that cannot be read.
    """

    def __init__(
        self,
        read: Callable[[int], UInt8],
        rows: Int64,
        labels: Int64,
        num_classes: int,
        side: int,
        describe: Callable[[int], str],
        advice: str,
    ) -> None:
        self.labels, self.num_classes = labels, num_classes
        self._describe, self._advice = describe, advice
        self._read, self._rows, self._side = read, rows, side
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self._rows)

    def centred(self, indices: Int64) -> UInt8:
        """Return the centre crops of some images, (B, S, S, 3)."""
        return self.cropped(indices, lambda original, _: center_crop(original, self._side))

    def cropped(self, indices: Int64, crop: Crop) -> UInt8:
        """Apply `crop` to the original of each of some images, and stack: (B, ...).

        Files are read in the source's order, so that neighbours in it are read together.
        """
        rows = self._rows[indices]
        # Stable, here and below: the same index twice in a batch keeps its two places.
        order = np.argsort(rows, kind="stable")

        def view(position: int) -> UInt8:
            row = int(rows[position])
            try:
                original = self._read(row)
            except Exception as error:  # arbitrary bytes make a decoder raise whatever it will
                raise ValueError(
                    f"{self._describe(row)} cannot be read: {error}; {self._advice}"
                ) from error
            return crop(original, int(position))

        views = list(self._pool.map(view, order))
        # Back into the order of the batch: the crop of a position belongs to that position.
        return np.stack([views[i] for i in np.argsort(order, kind="stable")])


def decode(content: bytes) -> UInt8:
    """Decode an image of any mode to RGB, (H, W, 3), as it is stored: neither turned nor blended.

    Raises:
        ValueError: the content is empty or not an image, or has floating-point pixels.
    """
    with open_picture(content) as picture:
        return to_rgb(picture)


def open_picture(content: bytes) -> Image.Image:
    """Open an encoded image; its pixels are decoded when they are asked for.

    Raises:
        ValueError: the content is empty or not an image.
    """
    if not content:
        raise ValueError("it is empty")
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise ValueError(f"{len(content):,} bytes that are no image") from error


def to_rgb(picture: Image.Image) -> UInt8:
    """Convert a picture of any mode to RGB, (H, W, 3); alpha is dropped.

    Raises:
        ValueError: it has floating-point pixels.
    """
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, not 8 bits a channel")
    if picture.mode.startswith("I"):  # 16 bits, which `convert` would clip instead of scale
        grey = (np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def check_count(config: SplitConfig, available: int) -> None:
    """Raise `ValueError` if more images are asked of a split than it has."""
    if config.images > available:
        raise ValueError(
            f"{config.images} images asked of the {config.split} split of {config.name}, "
            f"which has {available}; lower data.{config.split}_images"
            + (" or evaluation.num_images" if config.split == "val" else "")
        )


def in_batches(count: int, size: int) -> Iterator[Int64]:
    """Yield the indices 0 to `count` - 1 in order, `size` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def read_ahead(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply `read` to each item in order; a thread reads the next while one is used."""
    # One thread, one item ahead: more would hold more batches in memory and gain nothing, since
    # each `read` uses all decoders.
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        pending: Future[R] | None = None
        for item in items:
            following = pool.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
