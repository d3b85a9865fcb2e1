"""Differentiable augmentation of what a discriminator sees (DiffAug: Zhao et al. 2020).

Random numbers come from torch's global generator, so they are a function of its seed. Each image
gets its own. B batch, C channels, H W image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TRANSLATION = 0.125
"""Largest shift along either axis, as a fraction of the side."""
CUTOUT = 0.2
"""Side of the square that is blanked, as a fraction of the image's."""


def augment(image_BCHW: Tensor) -> Tensor:
    """Translate, recolour and cut out, every image and every time, as the authors do."""
    return cut_out(recolour(translate(image_BCHW)))


def translate(image_BCHW: Tensor) -> Tensor:
    """Shift by whole pixels, up to an eighth of the side each way; what comes in is zero."""
    channels, height, width = image_BCHW.shape[1:]
    reach_h, reach_w = round(height * TRANSLATION), round(width * TRANSLATION)
    # Gathering rows and then columns keeps the gradient, with another shift for each image.
    padded = F.pad(image_BCHW, (reach_w, reach_w, reach_h, reach_h))
    # Rows are drawn before columns: another order changes every seeded run.
    rows_BH = _starts(image_BCHW, 2 * reach_h + 1) + _places(image_BCHW, height)
    columns_BW = _starts(image_BCHW, 2 * reach_w + 1) + _places(image_BCHW, width)
    # (B, C, H, W + 2 reach): rows are chosen, columns are still padded.
    index = rows_BH[:, None, :, None].expand(-1, channels, -1, padded.shape[-1])
    shifted = padded.gather(2, index)
    index = columns_BW[:, None, None, :].expand(-1, channels, height, -1)
    return shifted.gather(3, index)


def recolour(image_BCHW: Tensor) -> Tensor:
    """Change brightness by +-0.5, then saturation by 0 to 2 times, then contrast by 0.5 to 1.5."""
    # One number of each kind per image, all three drawn at once.
    brightness, saturation, contrast = torch.rand(
        (3, image_BCHW.shape[0], 1, 1, 1), device=image_BCHW.device, dtype=image_BCHW.dtype
    )
    x = image_BCHW + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    recoloured: Tensor = mean + (x - mean) * (contrast + 0.5)
    return recoloured


def cut_out(image_BCHW: Tensor) -> Tensor:
    """Zero one square; it may stick out of the image, so borders are hidden as often."""
    height, width = image_BCHW.shape[-2:]
    rows_BH = _in_window(image_BCHW, height)
    columns_BW = _in_window(image_BCHW, width)
    cut_B1HW = rows_BH[:, None, :, None] & columns_BW[:, None, None, :]
    return image_BCHW.masked_fill(cut_B1HW, 0)


def _in_window(image_BCHW: Tensor, side: int) -> Tensor:
    """Mark the places along one axis in a window whose centre is anywhere on it: bool (B, S)."""
    length = round(side * CUTOUT)
    # A window of even length has no middle place, so there is one more position for it.
    first_B1 = _starts(image_BCHW, side + 1 - length % 2) - length // 2
    places_1S = _places(image_BCHW, side)
    return (places_1S >= first_B1) & (places_1S < first_B1 + length)


def _starts(image_BCHW: Tensor, count: int) -> Tensor:
    """Draw a whole number from 0 to before `count` per image, (B, 1)."""
    return torch.randint(count, (image_BCHW.shape[0], 1), device=image_BCHW.device)


def _places(image_BCHW: Tensor, side: int) -> Tensor:
    return torch.arange(side, device=image_BCHW.device)[None]
