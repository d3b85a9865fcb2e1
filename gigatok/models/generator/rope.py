"""Axial rotary positions of codes on a grid (2D RoPE of LlamaGen's `gpt.py`).

The first half of a head's pairs of channels turns with the row of a code and the second half with
its column, at frequencies that fall geometrically from 1 to almost 1/10000.

B batch, H heads, T positions, d head width, p = d/2 pairs.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

BASE = 10_000

Rotation = tuple[Tensor, Tensor]
"""Pair of cosine and sine, float32 (T, p) each."""


def grid_side(num_tokens: int, head_width: int) -> int:
    """Compute the side of the square grid of so many codes.

    Raises:
        ValueError: there is no such grid, or a head does not split into two halves of pairs.
    """
    side = isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(
            f"position rope_2d needs a square number of codes, such as {side * side}; "
            f"there are {num_tokens}"
        )
    if head_width % 4:
        raise ValueError(
            f"position rope_2d needs heads whose width is a multiple of 4; it is {head_width}"
        )
    return side


def axial_rotation(
    positions_T: Tensor, side: int, head_width: int, class_scale: float = 1.0
) -> Rotation:
    """Compute the rotations of codes by their place in the row-major grid.

    Args:
        positions_T: index of each code; -1 is the class, which is not turned.
        side: of the grid.
        head_width: channels of a head.
        class_scale: what the class is multiplied by; LlamaGen's table has 0 there.
    """
    half = head_width // 2
    exponents = torch.arange(0, half, 2, device=positions_T.device, dtype=torch.float32) / half
    frequencies = 1 / BASE**exponents
    is_class_T1 = (positions_T < 0)[:, None]
    places_T = positions_T.clamp(min=0)
    angles_Tp = torch.cat(
        [(places_T // side)[:, None] * frequencies, (places_T % side)[:, None] * frequencies],
        dim=1,
    )
    cosine_Tp = torch.where(is_class_T1, class_scale, angles_Tp.cos())
    sine_Tp = torch.where(is_class_T1, 0.0, angles_Tp.sin())
    return cosine_Tp, sine_Tp


def rotate(x_BHTd: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of neighbouring channels, in float32; the type of x is kept."""
    cosine_Tp, sine_Tp = rotation
    even, odd = x_BHTd.float().reshape(*x_BHTd.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([even * cosine_Tp - odd * sine_Tp, odd * cosine_Tp + even * sine_Tp], -1)
    return turned.flatten(-2).to(x_BHTd.dtype)
