"""Known answers of the extra losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from gigatok.config.kinds.losses import LOSSES
from gigatok.models.losses.base import build_loss
from gigatok.models.tokenizer.base import TokenizerOutput

SIDE = 16


def loss_of(name: str, error_BCHW: Tensor, **settings: Any) -> float:
    """Of an image of noise and a reconstruction that is off by so much."""
    image = torch.randn(error_BCHW.shape, generator=torch.Generator().manual_seed(0)).double()
    codes = torch.zeros(len(image), 1, dtype=torch.int64)
    loss = build_loss(LOSSES[name].config.model_validate({"name": name, **settings}))
    return float(loss(TokenizerOutput(image + error_BCHW, codes, {}), image, 1))


def wave(height: float) -> Tensor:
    """A cosine across the image: two frequencies of `height / 2` each, times the side."""
    x = torch.arange(SIDE, dtype=torch.float64)
    return height * torch.cos(2 * math.pi * 3 * x / SIDE).expand(1, 1, SIDE, SIDE)


def test_absolute_error() -> None:
    error = torch.tensor([0.5, -1.5]).double().view(1, 2, 1, 1).expand(1, 2, SIDE, SIDE)
    assert loss_of("l1", error) == pytest.approx(1.0)


def test_charbonnier_is_round_near_zero_and_straight_far_from_it() -> None:
    still = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.float64)
    assert loss_of("l1", still, epsilon=0.25) == pytest.approx(0.25)
    # The triangle of 3, 4 and 5.
    assert loss_of("l1", still + 4, epsilon=3) == pytest.approx(5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_focal_frequency_of_two_waves(alpha: float) -> None:
    """A constant of 1 and a wave of height 1: distances 1 and 1/2 (both times the side).

    The mean over SIDE**2 frequencies: 1**2 at weight 1, and twice (1/2)**2 at (1/2)**alpha.
    """
    found = loss_of("focal_frequency", 1 + wave(1.0), alpha=alpha)
    assert found == pytest.approx(1 + 2 * 0.25 * 0.5**alpha)


def test_focal_frequency_of_one_distance_is_the_squared_error() -> None:
    assert loss_of("focal_frequency", wave(0.6)) == pytest.approx(0.6**2 / 2)
    assert loss_of("focal_frequency", 0 * wave(1.0)) == 0


def test_focal_frequency_without_focus_is_the_squared_error_of_pixels() -> None:
    error = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    expected = float(mse_loss(error, torch.zeros_like(error)))
    assert loss_of("focal_frequency", error, alpha=0) == pytest.approx(expected)


def test_each_spectrum_has_its_own_largest_weight() -> None:
    """Two images with errors of different size: the mean of what each gives alone."""
    both = torch.cat([1 + wave(1.0), 10 * (1 + wave(1.0))])
    alone = loss_of("focal_frequency", 1 + wave(1.0))
    assert loss_of("focal_frequency", both) == pytest.approx((alone + 100 * alone) / 2)
