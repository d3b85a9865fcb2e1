"""The 2D baseline: every layer type against its equations with the library's own modules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gigatok.config import CNNConfig, TokenizerArchitecture, TransformerSize
from gigatok.models.tokenizer.layout import tokenizer_parameters
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.models.tokenizer.vit import LAYER_TYPES, ViTDecoder, ViTEncoder

SIZE = TransformerSize(width=16, layers=3, heads=2)
LAYERS = tuple(LAYER_TYPES)


def config(kind: str) -> TokenizerArchitecture:
    values = {"variant": "2d", "transformer_layer": kind, "encoder": SIZE, "decoder": SIZE}
    return TokenizerArchitecture(**values, cnn=CNNConfig(z_channels=6))


def randomised(module: nn.Module) -> nn.Module:
    """No weight at a value where a mistake would not show."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def attend(
    layer: nn.Module, name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    library = nn.MultiheadAttention(16, 2)  # sequence first, as the reference
    library.load_state_dict(getattr(layer, name).state_dict())
    return library(query, key, value)[0]


def norm(layer: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    own = getattr(layer, name)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * own.weight + own.bias


def mlp(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    hidden = x @ layer.linear1.weight.T + layer.linear1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return hidden @ layer.linear2.weight.T + layer.linear2.bias


def naive_layers(kind: str, layers: nn.ModuleList, x: torch.Tensor, pos: torch.Tensor):
    """Streams (N, B, D) after each layer, written out from the equations of the 2D baseline."""
    if kind == "vit":
        x = x + pos
    for layer in layers:
        memory = x
        u = norm(layer, "norm1", x)
        if kind == "vit":
            x = x + attend(layer, "self_attn", u, u, u)
            x = x + mlp(layer, norm(layer, "norm2", x))
        else:
            x = x + attend(layer, "self_attn", u + pos, u + pos, u)
            u = norm(layer, "norm2", x)
            if kind == "qformer":
                x = x + attend(layer, "multihead_attn", u + pos, memory + pos, memory)
            else:
                x = x + attend(layer, "multihead_attn", u + pos, u + pos, u)
            x = x + mlp(layer, norm(layer, "norm3", x))
        yield x


@torch.no_grad()
@pytest.mark.parametrize("kind", LAYERS)
def test_encoder_equals_its_equations(kind: str) -> None:
    encoder = randomised(ViTEncoder(config(kind), 3))
    spatial = torch.randn(2, 6, 3, 3)
    x_NBC = spatial.flatten(2).permute(2, 0, 1)
    x = encoder.encoder_embed(norm(encoder, "ln_pre", x_NBC))
    *_, x = naive_layers(kind, encoder.transformer, x, encoder.positional_embedding)
    x_BDHW = norm(encoder, "ln_post", x).permute(1, 2, 0).unflatten(2, (3, 3))
    expected = F.conv2d(x_BDHW, encoder.conv_out.weight, encoder.conv_out.bias)
    tokens = encoder(spatial)
    torch.testing.assert_close(tokens, expected.flatten(2).mT, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", LAYERS)
def test_decoder_equals_its_equations(kind: str) -> None:
    decoder = randomised(ViTDecoder(config(kind), 3, teacher_dim=5))
    z = torch.randn(2, 9, 6)
    x = decoder.decoder_embed(norm(decoder, "ln_pre", z.transpose(0, 1)))
    streams = list(naive_layers(kind, decoder.transformer, x, decoder.positional_embedding))
    x_BDHW = norm(decoder, "ln_post", streams[-1]).permute(1, 2, 0).unflatten(2, (3, 3))
    expected = F.conv2d(x_BDHW, decoder.conv_out.weight, decoder.conv_out.bias, padding=1)
    grid, stream = decoder(z, stream_after=2)
    torch.testing.assert_close(grid, expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(stream, streams[1].transpose(0, 1), atol=1e-4, rtol=1e-4)
    assert decoder(z)[1] is None
    assert decoder.distill_mlp is not None


@pytest.mark.parametrize(
    ("kind", "attentions", "norms"),
    [("vit", 1, 2), ("qformer", 2, 3), ("double_attention", 2, 3)],
)
def test_parameters_of_a_layer(kind: str, attentions: int, norms: int) -> None:
    layer, d = LAYER_TYPES[kind].build(SIZE), 16
    count = attentions * (4 * d**2 + 4 * d) + norms * 2 * d + 8 * d**2 + 5 * d
    assert sum(p.numel() for p in layer.parameters()) == count


@pytest.mark.parametrize("kind", LAYERS)
def test_checkpointing_changes_no_gradient(kind: str) -> None:
    gradients = []
    for recompute in (False, True):
        encoder = ViTEncoder(config(kind), 3, recompute=recompute)
        randomised(encoder)(torch.ones(1, 6, 3, 3)).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


# ── the whole tokenizer ────────────────────────────────────────────────────────────────────────

MICRO = TokenizerArchitecture(
    variant="2d",
    encoder=TransformerSize(width=16, layers=1, heads=2),
    decoder=TransformerSize(width=32, layers=2, heads=2),
    cnn=CNNConfig(channels=16, multipliers=(1, 2), resblocks=1, z_channels=16, groups=4),
    num_latent_tokens=3,  # of no meaning in 2D
    codebook_size=64,
    usage_window=256,
    semantic_layer=1,
)


def build(**changes: object) -> GigaTok:
    torch.manual_seed(0)
    return GigaTok(MICRO.model_copy(update=changes), 16, teacher_dim=12)


@pytest.fixture
def image_BCHW() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("init", ["reference", "fan_in"])
def test_a_2d_tokenizer_is_used_like_any_other(
    kind: str, init: str, image_BCHW: torch.Tensor
) -> None:
    tokenizer = build(transformer_layer=kind, init=init)
    assert MICRO.tokens_per_image(16) == 64
    output = tokenizer(image_BCHW)
    assert output.codes_BS.shape == (4, 64)
    assert output.semantic_BNS.shape == (4, 64, 12)
    assert output.spatial_BCHW.shape == output.rec_spatial_BCHW.shape == (4, 16, 8, 8)
    loss = output.reconstruction_BCHW.square().mean() + sum(output.losses.values())
    (loss + output.semantic_BNS.square().mean()).backward()
    assert [name for name, p in tokenizer.named_parameters() if p.grad is None] == []
    tokenizer.eval()
    codes_BT = tokenizer.encode(image_BCHW)
    torch.testing.assert_close(
        tokenizer.decode(codes_BT), tokenizer(image_BCHW).reconstruction_BCHW, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("semantic_weight", [0.0, 0.5])
def test_counts_by_part(kind: str, semantic_weight: float) -> None:
    tokenizer = build(transformer_layer=kind, semantic_weight=semantic_weight)
    count = tokenizer_parameters(tokenizer.config, 16, 12)
    assert count.total == sum(p.numel() for p in tokenizer.parameters())
    encoder = ("encoder", "s2dencoder", "quant_conv")
    sizes = [p.numel() for name, p in tokenizer.named_parameters() if name.startswith(encoder)]
    assert count.encoder == sum(sizes)
    assert (count.head > 0) == (semantic_weight > 0)


def test_tokens_are_the_cells_row_by_row(image_BCHW: torch.Tensor) -> None:
    """Without attention to others, a cell's token depends on that cell's features only."""
    encoder = ViTEncoder(config("vit"), 3)
    for layer in encoder.transformer:
        nn.init.zeros_(layer.self_attn.out_proj.weight)
    spatial = torch.randn(1, 6, 3, 3)
    changed = spatial.clone()
    changed[:, :, 1, 2] += 1
    differs = (encoder(spatial) != encoder(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [1 * 3 + 2]


def test_the_shortcut_decodes_the_encoder_grid(image_BCHW: torch.Tensor) -> None:
    tokenizer = build().eval()
    output = tokenizer(image_BCHW, shortcut=True)
    assert torch.equal(output.shortcut_BCHW, tokenizer.decoder(output.spatial_BCHW))
    assert tokenizer(image_BCHW).shortcut_BCHW is None


def test_positions_of_short_runs_tell_cells_apart() -> None:
    table = build(init="fan_in").s2dencoder.positional_embedding.squeeze(1)
    assert table.square().mean().item() == pytest.approx(1, rel=1e-3)
    assert torch.cdist(table, table).add(torch.eye(64) * 100).min() > 0.5
