"""Discriminators: counts and names as published, layers against plain implementations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gigatok.models.judges.diffaug import augment, cut_out, recolour, translate
from gigatok.models.judges.dino import DINOSmall, load_dino
from gigatok.models.judges.discriminators import (
    DINODiscriminator,
    LocalBatchNorm,
    PatchGAN,
    build_discriminator,
    view_for_dino,
)


@pytest.fixture
def image_BCHW() -> torch.Tensor:
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ── PatchGAN ───────────────────────────────────────────────────────────────────────────────────


def test_patchgan_has_the_published_parameters() -> None:
    discriminator = PatchGAN()
    assert count(discriminator) == 2_765_633
    layers = {name.rpartition(".")[0] for name in discriminator.state_dict()}
    assert layers == {f"main.{i}" for i in (0, 2, 3, 5, 6, 8, 9, 11)}
    assert discriminator.main[5].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert discriminator.main[6].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert discriminator.main[6].weight.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.heavy
@pytest.mark.parametrize(("side", "logits"), [(256, 30), (64, 6), (24, 1)])
def test_patchgan_judges_patches(side: int, logits: int) -> None:
    with torch.device("meta"):
        assert PatchGAN()(torch.rand(2, 3, side, side)).shape == (2, 1, logits, logits)


def test_patchgan_refuses_images_without_a_patch() -> None:
    with pytest.raises(ValueError, match=r"24 pixels or more, got \(16, 16\)"):
        PatchGAN()(torch.zeros(1, 3, 16, 16))


@pytest.mark.heavy
def test_a_logit_sees_70_pixels() -> None:
    discriminator = PatchGAN().eval()  # batch norms that mix no positions
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    discriminator(image)[0, 0, 15, 15].backward()
    seen = image.grad.abs().sum((0, 1)).sum(0).nonzero()
    assert seen.max() - seen.min() + 1 == 70


# ── DINO ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def dino_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the published names and shapes, with random weights."""
    torch.manual_seed(0)
    backbone = DINOSmall()
    nn.init.normal_(backbone.pos_embed, std=0.02)
    nn.init.normal_(backbone.cls_token, std=0.02)
    path = tmp_path_factory.mktemp("dino") / "dino.pth"
    torch.save(backbone.state_dict(), path)
    return path


@pytest.fixture
def dino(dino_file: Path, monkeypatch: pytest.MonkeyPatch) -> DINODiscriminator:
    monkeypatch.setenv("GIGATOK_DINO", str(dino_file))
    torch.manual_seed(1)
    discriminator = build_discriminator("dino", "cpu")
    assert isinstance(discriminator, DINODiscriminator)
    return discriminator


def test_backbone_has_the_parameters_of_the_published_file() -> None:
    with torch.device("meta"):
        backbone = DINOSmall()
    assert count(backbone) == 21_665_664
    names = set(backbone.state_dict())
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.bias"} < names
    assert {n for n in names if n.startswith("blocks.11.")} == {
        f"blocks.11.{layer}.{kind}"
        for layer in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }


@pytest.mark.heavy
def test_dino_discriminator_has_the_published_names_and_none_of_the_backbone(
    dino: DINODiscriminator,
) -> None:
    assert count(dino) == 7_386_245
    conv = ("bias", "weight_orig", "weight_u", "weight_v")
    expected = {f"{layer}.{name}" for layer in ("0.0", "1.fn.0", "2") for name in conv}
    expected |= {f"{norm}.{name}" for norm in ("0.1", "1.fn.1") for name in ("weight", "bias")}
    assert set(dino.state_dict()) == {f"heads.{i}.{name}" for i in range(5) for name in expected}


@pytest.mark.heavy
def test_logits_of_every_patch_at_five_depths(
    dino: DINODiscriminator, image_BCHW: torch.Tensor
) -> None:
    image_BCHW.requires_grad_()
    logits = dino(image_BCHW)
    assert logits.shape == (4, 5 * 196)
    logits.mean().backward()
    assert image_BCHW.grad.abs().max() > 0
    assert all(p.grad is not None for p in dino.parameters())
    assert all(p.grad is None for p in dino._backbone[0].parameters())


@pytest.mark.heavy
def test_a_head_equals_its_equations(dino: DINODiscriminator) -> None:
    head = dino.heads[0].eval()  # no power iteration
    x = torch.randn(8, 384, 196)

    def block(part: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        weight = part[0].weight_orig
        sigma = part[0].weight_u @ weight.flatten(1) @ part[0].weight_v
        reach = weight.shape[-1] // 2
        wrapped = torch.cat([x[..., x.shape[-1] - reach :], x, x[..., :reach]], -1)
        y = F.conv1d(wrapped, weight / sigma, part[0].bias)
        mean, std = y.mean((0, 2), keepdim=True), y.var((0, 2), correction=0, keepdim=True) + 1e-6
        y = (y - mean) / std.sqrt()
        y = y * part[1].weight[:, None] + part[1].bias[:, None]
        return torch.where(y > 0, y, 0.2 * y)

    y = block(head[0], x)
    y = (block(head[1].fn, y) + y) / 2**0.5
    sigma = head[2].weight_u @ head[2].weight_orig.flatten(1) @ head[2].weight_v
    expected = F.conv1d(y, head[2].weight_orig / sigma, head[2].bias)
    torch.testing.assert_close(head(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.heavy
def test_spectral_norm_converges_to_unit_gain(dino: DINODiscriminator) -> None:
    conv = dino.heads[1][0][0].train()
    for _ in range(200):
        conv(torch.zeros(1, 384, 4))
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_local_batch_norm_uses_virtual_batches_of_neighbours() -> None:
    norm, x = LocalBatchNorm(3), torch.randn(16, 3, 5)
    out = norm(x)
    for part in (out[:8], out[8:]):
        torch.testing.assert_close(part.mean((0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    changed = x.clone()
    changed[8:] += 1
    assert torch.equal(norm(changed)[:8], out[:8])
    assert norm(x[:12]).shape == (12, 3, 5), "two virtual batches of six"
    with pytest.raises(ValueError, match="equal parts of at most 8; a process has 9"):
        norm(x[:9])


@pytest.mark.heavy
def test_readouts_are_the_input_and_four_blocks(dino: DINODiscriminator) -> None:
    backbone = dino._backbone[0]
    image = torch.randn(1, 3, 224, 224)
    streams = backbone.streams(image, (2, 5, 8, 11))
    x = backbone.patch_embed.proj(image).flatten(2).transpose(1, 2)
    x = torch.cat([backbone.cls_token, x], 1) + backbone.pos_embed
    torch.testing.assert_close(streams[0], x)
    for index, block in enumerate(backbone.blocks):
        x = block(x)
        if index in (2, 5, 8, 11):
            torch.testing.assert_close(streams[1 + (index - 2) // 3], x)
    assert len(streams) == 5


def test_the_backbone_approximates_gelu_by_tanh() -> None:
    """The authors' judge does; DINO itself was trained with the exact form."""
    mlp, x = DINOSmall().blocks[0].mlp, torch.randn(3, 384)
    hidden = mlp.fc1(x)
    inner = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
    torch.testing.assert_close(mlp(x), mlp.fc2(0.5 * hidden * (1 + inner.tanh())))
    assert not torch.equal(mlp(x), mlp.fc2(F.gelu(hidden)))


@pytest.mark.heavy
def test_key_biases_are_zeroed_without_effect(
    dino_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_DINO", str(dino_file))
    original = DINOSmall()
    original.load_state_dict(torch.load(dino_file, weights_only=True))
    loaded, x = load_dino(), torch.randn(2, 5, 384)
    bias = loaded.blocks[0].attn.qkv.bias
    assert bias[384:768].abs().max() == 0
    assert bias[:384].abs().min() > 0
    torch.testing.assert_close(loaded.blocks[0](x), original.blocks[0](x), atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_without_the_file_it_is_said_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIGATOK_DINO", raising=False)
    with pytest.raises(ValueError, match=r"set GIGATOK_DINO to dino_deitsmall16_pretrain\.pth"):
        build_discriminator("dino", "cpu")
    monkeypatch.setenv("GIGATOK_DINO", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="which is no file"):
        load_dino()
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    monkeypatch.setenv("GIGATOK_DINO", str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match=r"does not hold DINO ViT-S/16: missing: cls_token"):
        load_dino()


@pytest.mark.heavy
def test_weights_of_another_backbone_are_refused(
    dino_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(dino_file, weights_only=True)
    monkeypatch.setenv("GIGATOK_DINO", str(tmp_path / "other.pth"))
    torch.save(
        {f"module.{key}": value.half() for key, value in state.items()}, tmp_path / "other.pth"
    )
    assert load_dino().norm.weight.dtype == torch.float32
    for changes, message in (
        ({"blocks.12.norm1.weight": torch.zeros(384)}, r"unexpected: blocks\.12\.norm1\.weight"),
        (
            {"norm.bias": torch.full((384,), torch.nan)},
            r"norm\.bias holds 384 values that are not",
        ),
    ):
        torch.save(state | changes, tmp_path / "other.pth")
        with pytest.raises(
            ValueError, match=rf"other\.pth does not hold DINO ViT-S/16: {message}"
        ):
            load_dino()


@pytest.mark.heavy
def test_views_are_crops_or_the_whole_image() -> None:
    image = (torch.arange(256 * 256) / 2**15 - 1).view(1, 1, 256, 256).expand(2, 3, -1, -1)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    shrunk = F.interpolate(((image + 1) / 2 - mean) / std, 224, mode="area")
    places = []
    for seed in range(60):
        torch.manual_seed(seed)
        view = view_for_dino(image)
        if torch.allclose(view, shrunk, atol=1e-5):
            continue
        numbers = ((view * std + mean) * 2**16).round().long()
        assert torch.equal(numbers[0], numbers[1]), "one place for the whole batch"
        places.append(divmod(int(numbers[0, 0, 0, 0]), 256))
        y, x = places[-1]
        rows, columns = torch.arange(y, y + 224), torch.arange(x, x + 224)
        assert torch.equal(numbers[0, 2], rows[:, None] * 256 + columns)
    assert 20 < len(places) < 40
    assert all(0 <= place <= 32 for pair in places for place in pair)
    assert len(set(places)) > 15
    assert view_for_dino(image[:, :, :32, :32]).shape == (2, 3, 224, 224)


# ── augmentation ───────────────────────────────────────────────────────────────────────────────


def test_translation_moves_up_to_an_eighth_and_fills_with_zero() -> None:
    image = torch.zeros(400, 1, 16, 16)
    image[:, 0, 8, 8] = 1
    torch.manual_seed(0)
    rows, columns = translate(image)[:, 0].nonzero()[:, 1:].unbind(1)
    assert set(rows.tolist()) == set(columns.tolist()) == {6, 7, 8, 9, 10}
    ones = translate(torch.ones(50, 1, 16, 16))
    assert set(ones.unique().tolist()) == {0, 1}
    assert not torch.equal(rows, columns)


def test_recolouring_keeps_what_it_says() -> None:
    torch.manual_seed(0)
    image = torch.rand(500, 3, 4, 4)
    out = recolour(image)
    shift = out.mean((1, 2, 3)) - image.mean((1, 2, 3))
    assert -0.5 <= shift.min() < -0.45 < 0.45 < shift.max() <= 0.5
    grey = image.mean(1, keepdim=True)
    contrast = (out.mean(1) - out.mean((1, 2, 3))[:, None, None]).flatten(1).norm(dim=1)
    contrast /= (grey[:, 0] - image.mean((1, 2, 3))[:, None, None]).flatten(1).norm(dim=1)
    assert 0.5 <= contrast.min() < 0.55 < 1.45 < contrast.max() <= 1.5001
    colour = (out - out.mean(1, keepdim=True)).flatten(1).norm(dim=1)
    colour /= (image - grey).flatten(1).norm(dim=1) * contrast
    assert 0 <= colour.min() < 0.05 < 1.95 < colour.max() <= 2.0001


def test_cutout_hides_a_fifth_of_the_side_anywhere() -> None:
    torch.manual_seed(0)
    kept = cut_out(torch.ones(20_000, 1, 20, 20))[:, 0]
    hidden = (1 - kept).sum((1, 2))
    assert hidden.max() == 16
    assert hidden.min() >= 4, "the centre of the square is in or at the edge of the image"
    inner = (1 - kept).mean(0)[4:-4, 4:-4]
    assert inner.min() > 0.5 * inner.max()


def test_augmentation_is_differentiable_and_random(image_BCHW: torch.Tensor) -> None:
    image_BCHW.requires_grad_()
    torch.manual_seed(0)
    first = augment(image_BCHW)
    second = augment(image_BCHW)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(augment(image_BCHW), first)
    first.square().sum().backward()
    assert (image_BCHW.grad.flatten(1).abs().max(1).values > 0).all()
