"""Finite scalar quantization against the formulas of arXiv 2309.15505."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from gigatok.models.quantizers.fsq import FiniteScalarQuantizer, bound
from tests.gigatok.models.quantizers.quantizer_configs import build


def fsq(*levels: int) -> Any:
    quantizer = build({"name": "fsq", "levels": levels})
    assert isinstance(quantizer, FiniteScalarQuantizer)
    return quantizer


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 16])
def test_a_channel_takes_each_of_its_levels_and_no_other(levels: int) -> None:
    z = torch.linspace(-50, 50, 100_001)
    found = bound(z, levels).round().unique().tolist()
    # Of an even number, there is one more below 0 than above it.
    assert found == list(range(-(levels // 2), (levels - 1) // 2 + 1))


def test_the_bound_of_the_papers_listing() -> None:
    """Appendix A.1: (L - 1)(1 - eps)/2, half a step off and a tangent for even L."""
    z = np.array([-2.0, -0.3, 0.0, 0.7, 3.0])
    for levels in (5, 8):
        half = (levels - 1) * 0.999 / 2
        offset = 0.5 * (levels % 2 == 0)
        expected = np.tanh(z + np.tan(offset / half)) * half - offset
        np.testing.assert_allclose(bound(torch.tensor(z), levels).numpy(), expected, rtol=1e-12)


def test_zero_is_the_middle_level() -> None:
    for levels in (3, 4, 5, 8):
        assert bound(torch.zeros(1), levels).round().item() == 0


def test_codes_count_in_mixed_radix_the_first_channel_lowest() -> None:
    """Basis (1, 8, 40, 200) of the paper's levels [8, 5, 5, 5], 1000 codes."""
    quantizer = fsq(8, 5, 5, 5)
    assert quantizer.basis == (1, 8, 40, 200)
    assert quantizer.shape == (1000, 4, 1)
    lowest = torch.full((1, 1, 4), -9.0)
    assert quantizer.nearest(lowest).item() == 0
    assert quantizer.nearest(-lowest).item() == 999
    # Middle levels: 4 + 8 * 2 + 40 * 2 + 200 * 2.
    assert quantizer.nearest(0 * lowest).item() == 500


def test_codes_and_vectors_go_round() -> None:
    quantizer = fsq(4, 3, 5)
    codes = torch.arange(60)[None]
    vectors = quantizer.get_codebook_entry(codes)
    # All combinations, each level over half of their number: in [-1, 1], as the paper scales.
    assert vectors.abs().max() == 1
    assert len(vectors[0].unique(dim=0)) == 60
    digits = [(n * v).long() for n, v in zip((2, 1, 2), vectors.unbind(-1), strict=True)]
    wanted = [d + n for d, n in zip(digits, (2, 1, 2), strict=True)]
    assert torch.equal(wanted[0] + 4 * wanted[1] + 12 * wanted[2], codes)
    # Latents that the bound maps onto the levels are coded as what they stand for.
    for place, levels in itertools.product(range(60), [(4, 3, 5)]):
        values = []
        for value, n in zip(vectors[0, place].tolist(), levels, strict=True):
            half, offset = (n - 1) * 0.999 / 2, 0.0 if n % 2 else 0.5
            at = max(min((value * (n // 2) + offset) / half, 0.9999), -0.9999)
            values.append(math.atanh(at) - math.tan(offset / half))
        assert quantizer.nearest(torch.tensor(values)[None, None]).item() == place


def test_gradients_pass_the_rounding_but_not_the_bound() -> None:
    quantizer = fsq(5, 5)
    z = torch.tensor([[[0.4, -1.2]]], requires_grad=True)
    quantizer(z).z_BTC.sum().backward()
    # d/dz of tanh(z) * 4 * 0.999 / 2, over the 2 that scales levels to [-1, 1].
    slope = (1 - z.detach().tanh() ** 2) * 0.999
    torch.testing.assert_close(z.grad, slope)


def test_it_learns_nothing_and_asks_for_no_loss() -> None:
    quantizer = fsq(8, 8)
    assert list(quantizer.parameters()) == []
    assert quantizer(torch.randn(2, 3, 2)).losses == {}
