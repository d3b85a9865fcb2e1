"""A data set: striped images in ten classes, made by a rule, so that nothing is downloaded."""

import numpy as np

from gigatok.config import SplitConfig
from gigatok.config.kinds.data_sets import DataSet, register
from gigatok.data.image_sets import Images, check_count

# What identifies the content. Keys hold it: where the images change, this text has to change.
RULE = "stripes of ten widths, rule 2"
register(DataSet("stripes", num_classes=10, fingerprint=RULE, module=__name__))


def load(config: SplitConfig) -> Images:
    """Make the images of a split: the first ones of an endless sequence."""
    check_count(config, 10_000)  # more than there are is an error that says so
    side = config.image_size
    first = 0 if config.split == "train" else 10_000  # no image is in both splits
    number = np.arange(first, first + config.images)
    labels = number % 10
    phase = (number // 10)[:, None] + np.arange(side)[None, :]
    rows = (phase * (labels[:, None] + 1) * 8 % 256).astype(np.uint8)  # (N, side)
    tint = (number[:, None] // [1, 256, 65536]).astype(np.uint8)  # of its own for every image
    pixels = rows[:, :, None, None] + tint[:, None, None, :]  # (N, side, 1, 3)
    pixels = np.broadcast_to(pixels, (config.images, side, side, 3))
    return Images(np.ascontiguousarray(pixels), labels, 10, side)
