"""Grids of small images as one picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gigatok.data.splits import to_uint8

Pixels = npt.NDArray[np.uint8]
SMALLEST_SIDE = 64
"""Side below which images are enlarged by whole factors, so that a browser shows them sharp."""


def image_grid(images: Pixels, columns: int) -> Pixels:
    """Lay images (N, H, W, 3) out row by row, with a white line between them."""
    factor = max(1, SMALLEST_SIDE // images.shape[1])
    # By repetition, not interpolation: the pixels of a small image are to be seen.
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    missing = -len(images) % columns
    padded = np.pad(images, ((0, missing), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = padded.reshape(-1, columns, *padded.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def reconstruction_grid(originals: Tensor, reconstructions: Tensor) -> Pixels:
    """Show originals above their reconstructions, both (N, 3, H, W) in [-1, 1]."""
    pair = np.concatenate([to_uint8(originals), to_uint8(reconstructions)])
    return image_grid(pair, columns=len(originals))
