"""Contract of a data set: what stages and keys rely on. N images, S their side.

A data set of a user's own images (`looks`) is checked by its facts alone: it has no images until
a trial names a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from gigatok.config import SplitConfig
from gigatok.config.kinds.data_sets import DataSet
from gigatok.contracts.base import Check, SmokeTrial, broken
from gigatok.data.crops import UInt8
from gigatok.data.image_sets import ImageSet
from gigatok.data.splits import load_split, refuse_wrong_images

SIDE, IMAGES = 16, 32
TOO_MANY = 10**15
"""More images than there are addresses for, so that a data set which tries to make them fails."""
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


def broken_promises(data_set: DataSet) -> list[str]:
    """List what a data set does that it must not; empty: it keeps the contract."""
    return broken(CHECKS, data_set, f"data set {data_set.name}")


def smoke(data_set: DataSet) -> SmokeTrial | None:
    """Train a tokenizer on it and compare reconstructions; None: it needs a path of the user."""
    if data_set.looks is not None:
        return None
    return SmokeTrial(stages=("evaluate_reconstruction",), settings={"data.name": data_set.name})


def loaded(data_set: DataSet, split: Split, images: int = IMAGES) -> ImageSet:
    """Load the first images of a split."""
    return load_split(SplitConfig(name=data_set.name, split=split, image_size=SIDE, images=images))


def pixels(images: ImageSet) -> UInt8:
    """Read all images at the side S, (N, S, S, 3)."""
    return images.centred(np.arange(len(images)))


def has_images(data_set: DataSet) -> Iterator[Split]:
    """Yield the splits that can be loaded without a path."""
    yield from SPLITS if data_set.looks is None else ()


def facts(data_set: DataSet) -> Iterator[str]:
    """Check what planning reads: the number of classes, and what identifies the content."""
    if data_set.looks is None and not data_set.fingerprint:
        yield "its fingerprint is empty, so other images would not change the keys of stages"
    if data_set.looks is None and (data_set.num_classes is None or data_set.num_classes < 1):
        yield f"num_classes is {data_set.num_classes}; it must be at least 1"


def shapes(data_set: DataSet) -> Iterator[str]:
    """Check number, type and shape of images and labels, and the range of labels."""
    for split in has_images(data_set):
        images = loaded(data_set, split)
        refuse_wrong_images(
            images, SplitConfig(name=data_set.name, split=split, image_size=SIDE, images=IMAGES)
        )
        if (found := pixels(images)).shape != (IMAGES, SIDE, SIDE, 3):
            yield f"{split}: pixels are {found.shape}; they must be {(IMAGES, SIDE, SIDE, 3)}"
        if images.num_classes != data_set.num_classes:
            yield f"{split}: num_classes is {images.num_classes}, not {data_set.num_classes}"


def batches(data_set: DataSet) -> Iterator[str]:
    """Check that an image is the same alone, in any batch, and twice in one."""
    for split in has_images(data_set):
        images = loaded(data_set, split)
        whole = pixels(images)
        mixed = np.array([5, 0, 5, IMAGES - 1])
        if not np.array_equal(images.centred(mixed), whole[mixed]):
            yield f"{split}: images are others in a batch of another order"
        if not np.array_equal(images.centred(mixed[:1]), whole[mixed[:1]]):
            yield f"{split}: an image is another alone than in a batch"


def crops(data_set: DataSet) -> Iterator[str]:
    """Check that crops are cut from the original of each image, at its place in the batch."""
    for split in has_images(data_set):
        images, mixed = loaded(data_set, split), np.array([3, 0, 3])
        cut = images.cropped(mixed, lambda image, place: image[:1, :1] * 0 + np.uint8(place))
        if cut.shape != (3, 1, 1, 3) or cut.dtype != np.uint8:
            yield f"{split}: crops are {cut.dtype} {cut.shape}; they must be uint8 (3, 1, 1, 3)"
        elif cut[:, 0, 0, 0].tolist() != [0, 1, 2]:
            yield f"{split}: crops are not in the order of the batch"


def determinism(data_set: DataSet) -> Iterator[str]:
    """Check that loading again gives the same, and that fewer images are the first of more."""
    for split in has_images(data_set):
        images, again = loaded(data_set, split), loaded(data_set, split)
        same = np.array_equal(pixels(images), pixels(again))
        if not (same and np.array_equal(images.labels, again.labels)):
            yield f"{split}: loaded twice, images or labels are others"
        fewer = loaded(data_set, split, IMAGES // 2)
        same = np.array_equal(pixels(fewer), pixels(images)[: IMAGES // 2])
        if not (same and np.array_equal(fewer.labels, images.labels[: IMAGES // 2])):
            yield f"{split}: {IMAGES // 2} images are not the first of {IMAGES}"


def splits(data_set: DataSet) -> Iterator[str]:
    """Check that no image is in both splits, as far as their first images tell."""
    known: set[bytes] = set()
    for split in has_images(data_set):
        found = {image.tobytes() for image in pixels(loaded(data_set, split))}
        if both := len(found & known):
            yield f"{both} of the first {IMAGES} images to validate are among those to train"
        known |= found


def counts(data_set: DataSet) -> Iterator[str]:
    """Check that more images than there are is an error that says so."""
    advice = "raise ValueError where more are asked than there are, as image_sets.check_count does"
    for split in has_images(data_set):
        try:
            loaded(data_set, split, TOO_MANY)
        except ValueError:
            continue
        # Such as MemoryError: it tried.
        except Exception as error:
            yield f"{split}: asked for {TOO_MANY} images: {type(error).__name__}; {advice}"
        else:
            yield f"{split}: {TOO_MANY} images were asked for without an error; {advice}"


CHECKS: tuple[Check, ...] = (facts, shapes, batches, crops, determinism, splits, counts)
