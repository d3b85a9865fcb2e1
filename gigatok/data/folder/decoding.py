"""Pictures of any mode as people see them: upright, opaque, 8 bits a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from gigatok.data.crops import UInt8
from gigatok.data.image_sets import open_picture, to_rgb


def decode_upright(content: bytes) -> UInt8:
    """Decode an image to RGB, (H, W, 3): turned as its EXIF says, transparency on white.

    Of an animation, the first frame counts.

    Raises:
        ValueError: the content is no image, is cut off, or has floating-point pixels.
    """
    with open_picture(content) as picture:
        return to_rgb(_opaque(ImageOps.exif_transpose(picture)))


def array_to_rgb(pixels: npt.NDArray[Any]) -> UInt8:
    """Convert an array (H, W) or (H, W, C) of uint8 or uint16 to RGB, (H, W, 3).

    C is 1 for grey, 3 for RGB, 4 for RGB with alpha.
    """
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return to_rgb(_opaque(Image.fromarray(pixels)))


def _opaque(picture: Image.Image) -> Image.Image:
    """Put what is transparent on white, as a browser shows it."""
    # Dropping alpha instead would show the colours that happen to lie below it, often black.
    # Pictures of 16 bits have no conversion to RGBA; their alpha does not occur in practice.
    if not picture.has_transparency_data or picture.mode.startswith("I"):
        return picture
    above = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
