"""Square crops of images of any size, as ADM cuts them.

ADM (Dhariwal & Nichol 2021) is the guided-diffusion repository: `center_crop_arr` and
`random_crop_arr` in its `image_datasets.py`, which the reference copies. Images are uint8 RGB (H,
W, 3); S is the side of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
Draws = Sequence[float] | npt.NDArray[np.float64]

# ADM's smallest crop is 0.8 of the image, so the image is at most 1 / 0.8 of the crop.
LARGEST_SHORT_SIDE = 1.25
"""Largest short side of the image of which a random crop is taken, over S; the smallest is 1."""
# From `extract_codes_c2i.py`: int(256 * 1.1) = 281 pixels.
_ENLARGEMENT = 1.1
"""Short side of the image of which five crops are taken, over S."""


def center_crop(image: UInt8, side: int) -> UInt8:
    """Cut the centre of the image scaled to a short side of S: (S, S, 3)."""
    scaled = _scale(image, side)
    top, left = ((length - side) // 2 for length in scaled.shape[:2])
    return scaled[top : top + side, left : left + side]


def random_crop(
    image: UInt8, side: int, draws: Sequence[float] | npt.NDArray[np.float64]
) -> UInt8:
    """Cut a random place of the image scaled to a random short side: (S, S, 3).

    Args:
        image: the original, (H, W, 3).
        side: S.
        draws: three numbers in [0, 1) that choose the short side, uniform over the integers from
            S to 1.25 S, then the top and the left of the crop, uniform over all that fit.
    """
    largest = int(np.ceil(side * LARGEST_SHORT_SIDE))
    scaled = _scale(image, side + _pick(draws[0], largest - side + 1))
    top, left = (
        _pick(draw, length - side + 1)
        for draw, length in zip(draws[1:], scaled.shape[:2], strict=True)
    )
    return scaled[top : top + side, left : left + side]


def five_crops(image: UInt8, side: int, *, mirrored: bool = False) -> UInt8:
    """Cut top-left, top-right, bottom-left, bottom-right and centre: (5, S, S, 3).

    They are cut out of the centre crop of side 1.1 S, rounded down. If `mirrored`, it is mirrored
    before the five are cut: of 281 and 256 pixels, the difference is odd, so no crop is central.
    """
    large = center_crop(image, int(side * _ENLARGEMENT))
    large = large[:, ::-1] if mirrored else large
    end = len(large) - side
    # Rounded as torchvision's centre crop, so that the codes equal the reference's.
    middle = round(end / 2)
    corners = ((0, 0), (0, end), (end, 0), (end, end), (middle, middle))
    return np.stack([large[top : top + side, left : left + side] for top, left in corners])


def ten_crops(image: UInt8, side: int) -> UInt8:
    """Cut the five crops of the image and then of its mirror image: (10, S, S, 3).

    Source: ten-crop of the reference's `extract_codes_c2i.py`.
    """
    return np.concatenate([five_crops(image, side), five_crops(image, side, mirrored=True)])


def _pick(draw: float, count: int) -> int:
    """Choose one of `count` equally likely integers from 0."""
    return int(draw * count)


def _scale(image: UInt8, short_side: int) -> UInt8:
    """Scale the image to a short side: halved by area means while twice as large, then bicubic."""
    if min(image.shape[:2]) == short_side:
        return image
    picture = Image.fromarray(image)
    # ADM's: bicubic filtering alone blurs or aliases when it shrinks by a large factor.
    while min(picture.size) >= 2 * short_side:
        halves = picture.width // 2, picture.height // 2
        picture = picture.resize(halves, Image.Resampling.BOX)
    ratio = short_side / min(picture.size)
    size = round(picture.width * ratio), round(picture.height * ratio)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
