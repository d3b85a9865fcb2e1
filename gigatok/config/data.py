"""Images that a trial and its stages read."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import PositiveInt

from gigatok.config.base import Config


class DataConfig(Config):
    """Data set of a trial: the first images of the training split and of the validation split."""

    name: Literal["digits", "cifar10", "imagenet"]
    """Data set by name."""
    image_size: PositiveInt
    """Side of the square images, in pixels."""
    train_images: PositiveInt
    """Number of training images: the first of the split."""
    val_images: PositiveInt
    """Number of validation images: the first of the split."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set."""
        return {"digits": 10, "cifar10": 10, "imagenet": 1000}[self.name]


class SplitConfig(Config):
    """First `images` images of one split."""

    name: Literal["digits", "cifar10", "imagenet"]
    """Data set by name."""
    split: Literal["train", "val"]
    """Split of the data set."""
    image_size: PositiveInt
    """Side of the square images, in pixels."""
    images: PositiveInt
    """Number of images: the first of the split."""


@lru_cache(maxsize=1024)
def split_config(name: str, split: str, image_size: int, images: int) -> SplitConfig:
    """Build a split config, one object per value, so that equal ones are one object."""
    # Ten thousand trials share a handful of splits; comparing each by value would cost seconds.
    values = {"name": name, "split": split, "image_size": image_size, "images": images}
    return SplitConfig.model_validate(values)
