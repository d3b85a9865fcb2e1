"""Handwritten digits of scikit-learn: tiny real images that need no download."""

from __future__ import annotations

import hashlib

import numpy as np

from gigatok.config import SplitConfig
from gigatok.config.kinds.data_sets import find_data_set
from gigatok.data.image_sets import Images, check_count

DIGITS_TRAIN = 1437
"""Number of the 1,797 digits that train; the other 360 are the validation split."""
# Fixed: neighbouring digits are of one writer, so a prefix in file order would hold few.
_DIGITS_ORDER_SEED = 0


def load(config: SplitConfig) -> Images:
    """Load the 8x8 digits as RGB in one fixed random order: 1,437 train, 360 val.

    Raises:
        ValueError: scikit-learn is missing or has other digits, or the split has fewer images.
    """
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
    if content != find_data_set("digits").fingerprint:
        raise ValueError(f"scikit-learn's digits have changed: sha256 {content}")
    order = np.random.RandomState(_DIGITS_ORDER_SEED).permutation(len(labels))
    part = order[:DIGITS_TRAIN] if config.split == "train" else order[DIGITS_TRAIN:]
    check_count(config, len(part))
    chosen = part[: config.images]
    # Values run from 0 to 16; 16 bits hold the product with 255.
    bytes_NHW = (grey_NHW[chosen].astype(np.uint16) * 255 // 16).astype(np.uint8)
    originals = np.repeat(bytes_NHW[..., None], 3, axis=-1)
    return Images(originals, labels[chosen], 10, config.image_size)
