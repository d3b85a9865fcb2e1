"""Residual quantization against the formulas of arXiv 2203.01941."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gigatok.models.quantizers.rvq import ResidualQuantizer
from tests.gigatok.models.quantizers.quantizer_configs import build


def rvq(depth: int = 2, size: int = 4, dim: int = 2, **changes: Any) -> ResidualQuantizer:
    quantizer = build(
        {"name": "rvq", "depth": depth}, codebook_size=size, codebook_dim=dim, **changes
    )
    assert isinstance(quantizer, ResidualQuantizer)
    return quantizer


COARSE = [[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]]
FINE = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]


def by_hand(**changes: Any) -> ResidualQuantizer:
    quantizer = rvq(**changes)
    quantizer.codebooks.data.copy_(torch.tensor([COARSE, FINE]))
    return quantizer


def test_each_depth_quantizes_what_the_ones_before_leave() -> None:
    quantizer = by_hand()
    z = torch.tensor([[[4.9, 0.1], [0.2, -2.8]]])
    # (4.9, 0.1): row 0, left (0.9, 0.1), row 0. (0.2, -2.8): row 3, left (0.2, 1.2), row 2.
    assert quantizer.nearest(z).tolist() == [[0, 0, 3, 2]]
    value = quantizer.get_codebook_entry(torch.tensor([[0, 0, 3, 2]]))
    assert value.tolist() == [[[5.0, 0.0], [0.0, -3.0]]]


def test_losses_by_hand() -> None:
    losses = by_hand(commitment_weight=0.5)(torch.tensor([[[4.9, 0.1]]])).losses
    # Left after no row, and after one: (4.9, 0.1) - (4, 0), and (0.9, 0.1) - (1, 0). The distances
    # of z to the sums so far are the same two.
    mean = ((0.81 + 0.01) / 2 + (0.01 + 0.01) / 2) / 2
    assert losses["vq"].item() == pytest.approx(mean, abs=1e-6)
    assert losses["commitment"].item() == pytest.approx(0.5 * mean, abs=1e-6)


def test_gradients_are_straight_through_and_each_codebook_learns() -> None:
    quantizer = by_hand()
    z = torch.tensor([[[4.9, 0.1]]], requires_grad=True)
    upstream = torch.tensor([[[3.0, -2.0]]])
    (gradient,) = torch.autograd.grad(quantizer(z).z_BTC, z, upstream)
    assert torch.equal(gradient, upstream)
    sum(quantizer(z).losses.values()).backward()
    moved = quantizer.codebooks.grad.abs().sum(-1) > 0
    # Only the rows that were taken, of both depths.
    assert moved.tolist() == [[True, False, False, False]] * 2


def test_more_depth_leaves_less() -> None:
    z = torch.randn(1, 400, 4, generator=torch.Generator().manual_seed(1))
    errors = []
    for depth in (2, 4):
        quantizer = rvq(depth, size=16, dim=4).eval()
        quantizer.initialise(z[0], torch.Generator().manual_seed(2))
        errors.append((quantizer(z).z_BTC - z).square().mean().item())
    assert errors[1] < 0.6 * errors[0] < 0.3


def test_codes_of_a_token_stand_together_the_coarsest_first() -> None:
    quantizer = rvq(3, size=8, dim=4)
    z = torch.randn(2, 5, 4)
    codes = quantizer.nearest(z)
    assert codes.shape == (2, 15)
    assert torch.equal(codes[:, 6:9], quantizer.nearest(z[:, 2:3]))


def test_usage_counts_the_entries_of_every_codebook() -> None:
    quantizer = by_hand()
    quantizer(torch.tensor([[[4.9, 0.1], [4.9, -0.1]]]))
    # One of four rows of each depth.
    assert quantizer.used_codes().nonzero().flatten().tolist() == [0, 4]
    assert quantizer.usage() == 0.25


def test_restart_takes_what_is_left_for_the_depth() -> None:
    quantizer = by_hand()
    z = torch.tensor([[[4.9, 0.1], [4.8, -0.1], [4.7, 0.3]]])
    quantizer(z)
    before = quantizer.codebooks.detach().clone()
    replaced = quantizer.restart(z, torch.Generator().manual_seed(0))
    assert replaced.item() == 6
    after = quantizer.codebooks.detach()
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.cdist(after[0, 1:], z[0]).min(-1).values.max() < 1e-5
    left = z[0] - torch.tensor([4.0, 0.0])
    assert torch.cdist(after[1, 1:], left).min(-1).values.max() < 1e-5


def test_initialisation_covers_the_latents_and_what_they_leave() -> None:
    quantizer = rvq(2, size=16, dim=4)
    z = torch.randn(16, 4)
    quantizer.initialise(z, torch.Generator().manual_seed(0))
    # As many latents as rows: the first codebook holds all of them, and nothing is left.
    torch.testing.assert_close(quantizer.eval()(z[None]).z_BTC[0], z, atol=1e-5, rtol=0)
