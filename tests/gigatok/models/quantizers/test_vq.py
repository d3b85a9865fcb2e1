import math

import pytest
import torch
import torch.nn.functional as F

from gigatok.config import TokenizerArchitecture, TransformerSize
from gigatok.models.quantizers import codebooks
from gigatok.models.quantizers.base import straight_through
from gigatok.models.quantizers.rvq import nearest_points
from gigatok.models.quantizers.vq import (
    VectorQuantizer,
    entropy_loss,
    nearest_rows,
    rotate_to,
)

SIZE = TransformerSize(width=8, layers=1, heads=1)


def build(**changes: object) -> VectorQuantizer:
    defaults = {"codebook_size": 16, "codebook_dim": 4, "usage_window": 10}
    torch.manual_seed(0)
    return VectorQuantizer(
        TokenizerArchitecture(
            encoder=SIZE, decoder=SIZE, semantic_weight=0, **{**defaults, **changes}
        )
    )


def test_codes_are_the_nearest_rows() -> None:
    z = F.normalize(torch.randn(50, 4), dim=-1)
    codebook = F.normalize(torch.randn(16, 4), dim=-1)
    assert torch.equal(nearest_rows(z, codebook), torch.cdist(z, codebook).argmin(-1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rotation_trick", [True, False])
def test_the_value_is_the_codebook_row(rotation_trick: bool, training: bool) -> None:
    quantizer = build(rotation_trick=rotation_trick).train(training)
    quantized = quantizer(torch.randn(3, 7, 4))
    row = quantizer.get_codebook_entry(quantized.codes_BS)
    torch.testing.assert_close(quantized.z_BTC, row, atol=1e-5, rtol=0)
    torch.testing.assert_close(row.norm(dim=-1), torch.ones(3, 7))
    assert torch.equal(quantizer.nearest(row * 5), quantized.codes_BS)


def test_rotation_turns_the_gradient_with_the_vector() -> None:
    # z along x and q along y: the rotation takes x to y and y to -x, so its transpose, which
    # gradients pass through, takes y to x.
    z = torch.tensor([[1.0, 0.0]], requires_grad=True)
    q = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(rotate_to(z, q), q, atol=1e-5, rtol=0)
    rotate_to(z, q).backward(torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(z.grad, torch.tensor([[1.0, 0.0]]), atol=1e-5, rtol=0)


def test_straight_through_passes_the_gradient_unchanged() -> None:
    z = torch.randn(3, 4, requires_grad=True)
    q, upstream = torch.randn(3, 4), torch.randn(3, 4)
    straight_through(z, q).backward(upstream)
    assert torch.equal(z.grad, upstream)


def test_losses_by_hand() -> None:
    quantizer = build(commitment_weight=0.25)
    quantizer.embedding.weight.data.copy_(torch.eye(4).repeat(4, 1))
    z = torch.tensor([[[3.0, 4.0, 0.0, 0.0]]])  # normalised (.6, .8), nearest (0, 1): mean .4/4
    losses = quantizer(z).losses
    assert losses["vq"].item() == pytest.approx(0.1)
    assert losses["commitment"].item() == pytest.approx(0.025)
    assert "entropy" not in losses
    assert sum(losses.values()).item() == pytest.approx(0.125)


def test_entropy_loss_rewards_decided_and_even_codes() -> None:
    rows = torch.eye(4)
    assert entropy_loss(rows, rows, 0.02).item() == pytest.approx(-math.log(4), abs=1e-4)
    alike = rows[:1].repeat(4, 1)
    assert entropy_loss(alike, rows, 0.02).item() == pytest.approx(0, abs=1e-4)
    undecided = torch.zeros(4, 4)
    assert entropy_loss(undecided, rows, 0.02).item() == pytest.approx(0, abs=1e-4)


def test_a_large_matrix_of_distances_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    z_MC = F.normalize(torch.randn(50, 4), dim=-1).requires_grad_()
    book_KC = F.normalize(torch.randn(16, 4), dim=-1)

    def results() -> list[torch.Tensor]:
        loss = entropy_loss(z_MC, book_KC, 0.1)
        (gradient,) = torch.autograd.grad(loss, z_MC)
        return [nearest_rows(z_MC, book_KC), nearest_points(z_MC, book_KC), loss, gradient]

    whole = results()
    # Seven vectors at a time, so that the last part is smaller.
    monkeypatch.setattr(codebooks, "LARGEST_MATRIX", 7 * 16)
    for in_parts, expected in zip(results(), whole, strict=True):
        torch.testing.assert_close(in_parts, expected)


def test_eval_has_no_losses_and_records_nothing() -> None:
    quantizer = build().eval()
    assert quantizer(torch.randn(2, 3, 4)).losses is None
    assert quantizer.usage() == 0


def test_usage_counts_a_window_first_in_first_out() -> None:
    quantizer = build()
    rows = torch.eye(4).repeat(4, 1)
    rows[4:] *= -1
    quantizer.embedding.weight.data.copy_(rows)
    quantizer(rows[:1].expand(1, 3, 4))
    assert quantizer.usage() == 1 / 16
    quantizer(rows[None, 1:2].expand(1, 8, 4))
    assert quantizer.used_codes().nonzero().flatten().tolist() == [0, 1]
    quantizer(rows[None, 2:3].expand(3, 4, 4))  # more than the window
    assert quantizer.used_codes().nonzero().flatten().tolist() == [2]


def test_nothing_waits_for_the_device() -> None:
    """On the meta device any read of a value raises."""
    with torch.device("meta"):
        quantizer = build(entropy_weight=0.1)
        quantized = quantizer(torch.randn(2, 3, 4, requires_grad=True))
        (quantized.z_BTC.sum() + sum(quantized.losses.values())).backward()
    assert quantizer.embedding.weight.grad is not None
    with pytest.raises((RuntimeError, NotImplementedError)):
        quantizer.usage()


def test_low_precision_inputs_are_quantised_in_float32() -> None:
    quantizer = build()
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer(torch.randn(2, 3, 4, dtype=torch.bfloat16))
    assert quantized.z_BTC.dtype == torch.float32
