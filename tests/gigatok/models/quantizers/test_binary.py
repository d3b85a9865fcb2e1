"""Lookup-free (arXiv 2310.05737) and binary spherical quantization (arXiv 2406.07548)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gigatok.models.quantizers.base import Quantizer
from gigatok.models.quantizers.binary import bitwise_entropy_loss
from tests.gigatok.models.quantizers.quantizer_configs import build


def lfq(bits: int, **settings: float) -> Quantizer:
    return build({"name": "lfq", "bits": bits, **settings})


def bsq(bits: int, **settings: float) -> Quantizer:
    return build({"name": "bsq", "bits": bits, **settings})


def corners(bits: int) -> Tensor:
    """All corners of the cube in the order of codes, whose lowest bit is the first channel."""
    rows = [row[::-1] for row in itertools.product((-1.0, 1.0), repeat=bits)]
    return torch.tensor(rows)


def test_a_code_is_the_sum_of_the_powers_of_its_positive_channels() -> None:
    z = torch.tensor([[[-3.0, -0.1, -2.0], [0.2, -1.0, -5.0], [-1.0, 0.0, 7.0], [1.0, 1.0, 1.0]]])
    for quantizer in (lfq(3), bsq(3)):
        assert quantizer.nearest(z).tolist() == [[0, 1, 4, 7]]  # 0 counts as negative


@pytest.mark.parametrize("bits", [1, 4])
def test_codes_and_vectors_go_round(bits: int) -> None:
    codes = torch.arange(2**bits)[None]
    for quantizer, length in ((lfq(bits), math.sqrt(bits)), (bsq(bits), 1.0)):
        vectors = quantizer.get_codebook_entry(codes)
        assert torch.equal(quantizer.nearest(vectors), codes)
        torch.testing.assert_close(vectors[0], corners(bits) * length / math.sqrt(bits))
        torch.testing.assert_close(vectors.norm(dim=-1), torch.full((1, 2**bits), length))


def test_the_code_is_the_nearest_corner() -> None:
    z = torch.randn(2, 50, 5)
    assert torch.equal(lfq(5).nearest(z), torch.cdist(z, corners(5)[None]).argmin(-1))
    unit = F.normalize(z, dim=-1)
    nearest = torch.cdist(unit, corners(5)[None] / math.sqrt(5)).argmin(-1)
    assert torch.equal(bsq(5).nearest(z), nearest)


@pytest.mark.parametrize("bits", [2, 9, 18])
def test_the_error_on_the_sphere_is_bounded(bits: int) -> None:
    """|u - q| < sqrt(2 - 2 / sqrt(L)), the bound of arXiv 2406.07548; worst is an axis."""
    quantizer = bsq(bits).eval()
    z = torch.cat([torch.randn(1, 200, bits), torch.eye(bits)[None]], dim=1)
    error = (F.normalize(z, dim=-1) - quantizer.get_codebook_entry(quantizer.nearest(z))).norm(
        dim=-1
    )
    worst = math.sqrt(2 - 2 / math.sqrt(bits))
    assert error.max().item() == pytest.approx(worst, abs=1e-5)


def test_gradients_are_straight_through_and_on_the_sphere_those_of_the_direction() -> None:
    upstream = torch.randn(2, 3, 4)
    z = torch.randn(2, 3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(lfq(4).eval()(z).z_BTC, z, upstream)
    assert torch.equal(gradient, upstream)
    (gradient,) = torch.autograd.grad(bsq(4).eval()(z).z_BTC, z, upstream)
    (expected,) = torch.autograd.grad(F.normalize(z, dim=-1), z, upstream)
    torch.testing.assert_close(gradient, expected)


def joint(z_MC: Tensor, corners_KC: Tensor, temperature: float) -> Tensor:
    """Softmax of minus the squared distance to all corners."""
    return (-(torch.cdist(z_MC, corners_KC) ** 2) / temperature).softmax(-1)


def entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-30).log()).sum(-1)


@pytest.mark.parametrize("name", ["lfq", "bsq"])
def test_the_entropy_of_a_vectors_code_is_that_over_all_corners(name: str) -> None:
    """The sum over bits is exact for one vector, and bounds the entropy of the mean."""
    temperature, bits = 0.7, 4
    quantizer = build({
        "name": name, "bits": bits, "entropy_weight": 1, "entropy_temperature": temperature,
    })  # fmt: skip
    z_MC = torch.randn(64, bits, dtype=torch.float32)
    at, cube = z_MC, corners(bits)
    if name == "bsq":
        at, cube = F.normalize(z_MC, dim=-1), cube / math.sqrt(bits)
    p_MK = joint(at, cube, temperature)
    bit_MC = torch.stack([p_MK[:, cube[:, c] > 0].sum(-1) for c in range(bits)], dim=-1)
    of_bits = sum(entropy(torch.stack([b, 1 - b], -1)) for b in bit_MC.mean(0))
    expected = entropy(p_MK).mean() - of_bits
    found = quantizer(z_MC[None]).losses["entropy"]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert of_bits >= entropy(p_MK.mean(0)) - 1e-6


def test_the_entropy_penalty_rewards_decided_and_even_bits() -> None:
    even = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]) * 10
    assert bitwise_entropy_loss(even).item() == pytest.approx(-2 * math.log(2), abs=1e-4)
    alike = torch.full((8, 2), 90.0)
    assert bitwise_entropy_loss(alike).item() == pytest.approx(0, abs=1e-4)
    undecided = torch.zeros(8, 2)
    assert bitwise_entropy_loss(undecided).item() == pytest.approx(0, abs=1e-4)


def test_weights_of_the_losses() -> None:
    quantizer = lfq(2, commitment_weight=0.5, entropy_weight=0)
    losses = quantizer(torch.tensor([[[0.5, -3.0]]])).losses
    # Distances 0.5 and 2 to the corners 1 and -1: half of the mean of 0.25 and 4.
    assert losses.keys() == {"commitment"}
    assert losses["commitment"].item() == pytest.approx(0.5 * 2.125)


def test_a_vocabulary_of_the_papers_size_needs_no_codebook() -> None:
    for quantizer in (lfq(18), bsq(18)):
        assert quantizer.shape.vocabulary == 262_144
        assert list(quantizer.parameters()) == []
        codes = quantizer(torch.randn(2, 40, 18)).codes_BS
        assert quantizer.usage() == pytest.approx(len(codes.unique()) / 262_144)
