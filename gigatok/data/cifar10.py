"""CIFAR-10 as a data set (Krizhevsky, 2009)."""

from __future__ import annotations

import numpy as np

from gigatok.config import SplitConfig
from gigatok.data import cifar10_records as records
from gigatok.data.assets import fetch
from gigatok.data.image_sets import Images, check_count


def load(config: SplitConfig) -> Images:
    """Load the 50,000 training images, or the 10,000 test images as `val`; fetched if needed.

    Raises:
        ValueError: the split has fewer images.
        AssetError: the data cannot be obtained.
    """
    train = config.split == "train"
    check_count(config, records.TRAIN if train else records.VAL)
    # The file holds the test images behind the training images.
    start = 0 if train else records.TRAIN
    images, labels = records.read_records(fetch("cifar10"), start, config.images)
    return Images(images, labels.astype(np.int64), records.NUM_CLASSES, config.image_size)
