"""Trained tokenizers in Python: load one, encode images into codes, decode codes into images.

    import gigatok

    tokenizer = gigatok.load_tokenizer("runs/stages/train_tokenizer/S-B-0123456789abcdef")
    codes = gigatok.encode(tokenizer, image)          # (T,) of one image
    again = gigatok.decode(tokenizer, codes)          # (S, S, 3)

Shapes: B images, H and W their sides, S the tokenizer's side, T tokens per image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gigatok.data.crops import UInt8, center_crop
from gigatok.data.splits import to_uint8, to_unit_range
from gigatok.models.tokenizer.tokenizer import Tokenizer
from gigatok.training import saved

Codes = npt.NDArray[np.int64]


def load_tokenizer(folder: str | Path, device: str = "cpu") -> Tokenizer:
    """Load a tokenizer that was trained or adopted, in eval mode.

    Args:
        folder: of the stage, or its `out` folder: `model.json` and `model.safetensors`.
        device: such as `cpu` or `cuda`.

    Raises:
        ValueError: there is no tokenizer.
    """
    places = (Path(folder), Path(folder) / "out")
    # A stage's folder holds its results in `out`.
    found = next((place for place in places if (place / "model.json").is_file()), None)
    if found is None:
        raise ValueError(
            f"{folder}: no tokenizer (model.json and model.safetensors); give the folder of a "
            "complete stage train_tokenizer or adopt_tokenizer"
        )
    return saved.load_tokenizer(found, device)


@torch.inference_mode()
def encode(tokenizer: Tokenizer, images: npt.ArrayLike) -> Codes:
    """Encode images into codes: (H, W, 3) into (T,), and (B, H, W, 3) into (B, T).

    An image of another side than the tokenizer's is scaled to it by its short side and cropped at
    the centre, as the images of an evaluation are.

    Args:
        tokenizer: of `load_tokenizer`.
        images: uint8 RGB; anything that numpy takes, such as an image of Pillow in mode RGB.

    Raises:
        ValueError: not uint8, or of another shape.
    """
    array: npt.NDArray[Any] = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise ValueError(
            f"got {array.dtype} of shape {array.shape}; images are uint8 (H, W, 3) or (B, H, W, 3)"
        )
    batch = array if array.ndim == 4 else array[None]
    # (B, H, W, 3) -> (B, S, S, 3), the crop of every evaluation.
    views = np.stack([center_crop(image, tokenizer.image_size) for image in batch])
    codes_BT = tokenizer.encode(to_unit_range(views).to(_device(tokenizer)))
    found: Codes = codes_BT.cpu().numpy()
    return found if array.ndim == 4 else found[0]


@torch.inference_mode()
def decode(tokenizer: Tokenizer, codes: npt.ArrayLike) -> UInt8:
    """Decode codes into uint8 RGB images: (T,) into (S, S, 3), and (B, T) into (B, S, S, 3).

    Args:
        tokenizer: of `load_tokenizer`.
        codes: whole numbers from 0 to the size of the codebook, without it.

    Raises:
        ValueError: of another shape, or outside the codebook.
    """
    array = np.asarray(codes)
    tokens = tokenizer.config.sequence_length(tokenizer.image_size)
    size = tokenizer.config.vocabulary
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.shape[-1] != tokens:
        raise ValueError(
            f"got {array.dtype} of shape {array.shape}; codes are whole numbers ({tokens},) or "
            f"(B, {tokens})"
        )
    if array.size and not 0 <= array.min() <= array.max() < size:
        raise ValueError(f"got codes {array.min()} to {array.max()}; allowed are 0 to {size - 1}")
    # (T,) or (B, T) -> (B, T).
    codes_BT = torch.from_numpy(np.atleast_2d(array).astype(np.int64)).to(_device(tokenizer))
    images = to_uint8(tokenizer.decode(codes_BT))
    return images if array.ndim == 2 else images[0]


def _device(tokenizer: Tokenizer) -> torch.device:
    return next(tokenizer.parameters()).device
