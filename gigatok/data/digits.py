"""Handwritten digits of scikit-learn: tiny real images that need no download."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

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
    table = np.loadtxt(_file(), np.uint8, delimiter=",")  # 64 pixels and the digit per line
    grey_NHW = table[:, :-1].reshape(-1, 8, 8)
    labels = table[:, -1].astype(np.int64)
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


def _file() -> Path:
    """Find the digits in scikit-learn's folder.

    Raises:
        ValueError: scikit-learn is missing, or keeps them elsewhere.
    """
    # Its own loader would import all of scikit-learn, SciPy and pandas: a second in every stage.
    spec = find_spec("sklearn")
    file = Path(spec.origin or "").parent / "datasets/data/digits.csv.gz" if spec else None
    if file is None or not file.is_file():
        where = f"; there is no {file}" if file else ""
        raise ValueError(
            "data.name digits needs scikit-learn from 1.6 on: pip install "
            f"'gigatok-scaling[digits]'{where}"
        )
    return file
