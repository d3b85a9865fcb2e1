"""Fashion-MNIST as a data set: photographs of 70,000 clothes, grey, 28x28 (Xiao et al., 2017)."""

from __future__ import annotations

import numpy as np

from gigatok.config import SplitConfig
from gigatok.data import fashion_mnist_records as records
from gigatok.data.assets import fetch
from gigatok.data.image_sets import Images, check_count


def load(config: SplitConfig) -> Images:
    """Load the 60,000 training images, or the 10,000 test images as `val`, as RGB.

    Raises:
        ValueError: the split has fewer images.
        AssetError: the data cannot be obtained.
    """
    train = config.split == "train"
    check_count(config, records.TRAIN if train else records.VAL)
    # The file holds the test images behind the training images.
    start = 0 if train else records.TRAIN
    grey_NHW, labels = records.read_records(fetch("fashion_mnist"), start, config.images)
    originals = np.repeat(grey_NHW[..., None], 3, axis=-1)
    return Images(originals, labels.astype(np.int64), records.NUM_CLASSES, config.image_size)
