"""Images as users have them, cut to the square views that a tokenizer takes.

Shapes: B images, H and W their sides, S the tokenizer's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gigatok.data.crops import UInt8, center_crop

OneImage = Image.Image | npt.NDArray[Any] | torch.Tensor
ImagesLike = OneImage | Sequence[OneImage]
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}
"""Modes of Pillow with 8 bits a channel or less, which it converts to RGB as one expects."""
_ALLOWED = (
    "images are Pillow's, uint8 arrays (H, W, 3) or (B, H, W, 3), or uint8 tensors (3, H, W) or "
    "(B, 3, H, W); float images in [-1, 1] of the right size go to `tokenizer.model`"
)


def square_views(images: ImagesLike, side: int) -> tuple[UInt8, bool]:
    """Cut the centre out of one or several images: (B, S, S, 3), and whether it is only one.

    Raises:
        ValueError: they are no images of 8 bits a channel.
    """
    if isinstance(images, Sequence) and not isinstance(images, str):
        singles = [_single(image, number) for number, image in enumerate(images)]
        views = [center_crop(image, side) for image in singles]
        return np.stack(views) if views else np.empty((0, side, side, 3), np.uint8), False
    pixels = _pixels(images)
    is_one = pixels.ndim == 3
    # Stacked even if it is one: a copy, since Pillow's memory is read-only, of which torch warns.
    batch = pixels[None] if is_one else pixels
    return np.stack([center_crop(image, side) for image in batch]), is_one


def _single(image: OneImage, number: int) -> UInt8:
    try:
        pixels = _pixels(image)
    except ValueError as error:
        raise ValueError(f"image {number} of the list: {error}") from error
    if pixels.ndim != 3:
        raise ValueError(
            f"image {number} of the list has shape {pixels.shape}; give a list of single images, "
            "or one array of them"
        )
    return pixels


def _pixels(image: OneImage) -> UInt8:
    """Convert to uint8 RGB, (H, W, 3) or (B, H, W, 3)."""
    if isinstance(image, Image.Image):
        if image.mode not in _MODES:  # of 16 or 32 bits, which Pillow would clip, not scale
            raise ValueError(
                f"an image of Pillow's mode {image.mode}, which has more than 8 bits a channel; "
                "scale it to 0 to 255 and convert it to RGB"
            )
        return np.asarray(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-3] != 3:
            raise _unusable("a tensor", image.dtype, tuple(image.shape))
        # (..., 3, H, W) -> (..., H, W, 3): tensors have channels first, as torch's layers do.
        return image.cpu().movedim(-3, -1).numpy()
    array: npt.NDArray[Any] = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise _unusable("an array", array.dtype, array.shape)
    return array


def _unusable(kind: str, dtype: object, shape: tuple[int, ...]) -> ValueError:
    return ValueError(f"got {kind} of {dtype} and shape {shape}; {_ALLOWED}")
