"""Which images a trial and its stages read."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import PositiveInt

from gigatok.config.base import Config


class DataConfig(Config):
    """Which images: the first `train_images` of the training split, `val_images` of the other."""

    name: Literal["digits", "cifar10", "imagenet"]
    image_size: PositiveInt
    train_images: PositiveInt
    val_images: PositiveInt

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""
        return {"digits": 10, "cifar10": 10, "imagenet": 1000}[self.name]


class SplitConfig(Config):
    """The first `images` images of one split."""

    name: Literal["digits", "cifar10", "imagenet"]
    split: Literal["train", "val"]
    image_size: PositiveInt
    images: PositiveInt


@lru_cache(maxsize=1024)
def split_config(name: str, split: str, image_size: int, images: int) -> SplitConfig:
    """Make one object per value, so that planning recognises what trials share."""
    values = {"name": name, "split": split, "image_size": image_size, "images": images}
    return SplitConfig.model_validate(values)
