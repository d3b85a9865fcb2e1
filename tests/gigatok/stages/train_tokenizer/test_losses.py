"""The shortcut losses, sums of terms, and the dropout that the reference leaves in LPIPS."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gigatok.config import TokenizerConfig, TransformerSize
from gigatok.models.frozen.perceptual import LPIPS
from gigatok.models.tokenizer.base import TokenizerOutput
from gigatok.stages.train_tokenizer.losses import shortcut_losses, summed

SIZE = TransformerSize(width=16, layers=3, heads=1)
CONFIG = TokenizerConfig(
    encoder=SIZE,
    decoder=SIZE,
    steps=1,
    batch_size=1,
    lr=1e-3,
    reconstruction_weight=2,
    perceptual_weight=3,
    shortcut_feature_weight=5,
)


def outputs(shortcut: bool) -> tuple[TokenizerOutput, torch.Tensor]:
    torch.manual_seed(0)
    image, direct = torch.randn(2, 2, 3, 8, 8)
    spatial, rec_spatial = torch.randn(2, 2, 4, 2, 2).requires_grad_().unbind()
    output = TokenizerOutput(
        reconstruction_BCHW=image,
        codes_BS=torch.zeros(2, 1, dtype=torch.int64),
        losses=None,
        semantic_BNS=None,
        spatial_BCHW=spatial,
        rec_spatial_BCHW=rec_spatial,
        shortcut_BCHW=direct if shortcut else None,
    )
    return output, image


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).abs().amax((1, 2, 3))


def test_the_decoder_grid_is_drawn_to_the_encoder_grid_and_not_back() -> None:
    output, image = outputs(shortcut=False)
    terms = shortcut_losses(CONFIG, output, image, distance)
    difference = output.rec_spatial_BCHW - output.spatial_BCHW
    assert terms["shortcut_feature_loss"].item() == pytest.approx(
        difference.square().mean().item()
    )
    assert terms["loss"].item() == pytest.approx(5 * terms["shortcut_feature_loss"].item())
    assert set(terms) == {"loss", "shortcut_feature_loss"}
    grids = (output.spatial_BCHW, output.rec_spatial_BCHW)
    to_encoder, to_decoder = torch.autograd.grad(terms["loss"], grids, allow_unused=True)
    assert to_encoder is None
    torch.testing.assert_close(to_decoder, 5 * 2 * difference / difference.numel())


def test_cosine_compares_the_channels_of_each_cell() -> None:
    output, image = outputs(shortcut=False)
    config = CONFIG.model_copy(update={"shortcut_feature_loss": "cosine"})
    terms = shortcut_losses(config, output, image, None)
    cosines = [
        F.cosine_similarity(
            output.rec_spatial_BCHW[b, :, y, x], output.spatial_BCHW[b, :, y, x], 0
        )
        for b in range(2)
        for y in range(2)
        for x in range(2)
    ]
    expected = sum(1 - cosine for cosine in cosines) / 8
    assert terms["shortcut_feature_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_direct_image_is_weighted_as_the_reconstruction() -> None:
    output, image = outputs(shortcut=True)
    terms = shortcut_losses(CONFIG, output, image, distance)
    mse = (output.shortcut_BCHW - image).square().mean()
    perceptual = distance(output.shortcut_BCHW, image).mean()
    assert terms["shortcut_reconstruction_loss"].item() == pytest.approx(mse.item())
    assert terms["shortcut_perceptual_loss"].item() == pytest.approx(perceptual.item())
    expected = 5 * terms["shortcut_feature_loss"] + 2 * mse + 3 * perceptual
    assert terms["loss"].item() == pytest.approx(expected.item())
    assert "shortcut_perceptual_loss" not in shortcut_losses(CONFIG, output, image, None)


def test_sums_keep_every_term() -> None:
    parts = [{"loss": torch.tensor(float(i)), f"term_{i}": torch.tensor(i)} for i in (1, 2)]
    total = summed(*parts)
    assert total["loss"].item() == 3
    assert set(total) == {"loss", "term_1", "term_2"}


@pytest.mark.network
def test_the_dropout_of_the_reference_is_unbiased_and_random() -> None:
    x, y = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact = LPIPS("alex")(x, y).item()
    noisy = LPIPS("alex", dropout=0.5)
    torch.manual_seed(0)
    draws = torch.stack([noisy(x, y)[0] for _ in range(300)])
    assert draws.std() > 0.01 * exact
    assert draws.mean().item() == pytest.approx(exact, abs=4 * (draws.std() / 300**0.5).item())
    torch.manual_seed(0)
    assert noisy(x, y).item() == draws[0].item()
