import pytest
import torch
from torch import nn

from gigatok.config import CNNConfig, TokenizerArchitecture, TransformerSize, finest_level
from gigatok.models.tokenizer.qformer import (
    Attention,
    QFormerDecoder,
    QFormerEncoder,
    pool_to_queries,
)

SIZE = TransformerSize(width=16, layers=2, heads=2)
CONFIG = TokenizerArchitecture(
    encoder=SIZE,
    decoder=SIZE,
    cnn=CNNConfig(z_channels=6),
    num_latent_tokens=8,
    semantic_weight=0,
)


def test_attention_equals_the_library_module_of_the_same_parameters() -> None:
    ours, library = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    ours.load_state_dict(library.state_dict())
    query, key, value = torch.randn(3, 2, 5, 16)
    torch.testing.assert_close(ours(query, key, value), library(query, key, value)[0])


@pytest.mark.parametrize(
    ("tokens", "finest"), [(1, (1, 1)), (2, (1, 1)), (4, (1, 2)), (32, (4, 4)), (256, (8, 16))]
)
def test_finest_level(tokens: int, finest: tuple[int, int]) -> None:
    assert finest_level(tokens) == finest


def test_queries_are_means_from_coarse_to_fine() -> None:
    grid_BHWD = torch.randn(2, 16, 16, 3)
    queries = pool_to_queries(grid_BHWD, 256)
    sizes = (1, 1, 2, 4, 8, 16, 32, 64, 128)
    groups = queries.split(sizes, dim=1)
    mean = grid_BHWD.mean((1, 2))
    torch.testing.assert_close(groups[0][:, 0], mean)
    for group in groups[1:]:
        torch.testing.assert_close(group.mean(1), mean)
    left, right = grid_BHWD[:, :, :8].mean((1, 2)), grid_BHWD[:, :, 8:].mean((1, 2))
    torch.testing.assert_close(groups[2], torch.stack([left, right], dim=1))  # columns first
    assert groups[-1].shape[1] == 8 * 16
    torch.testing.assert_close(groups[-1][:, 17], grid_BHWD[:, 2:4, 1].mean(1))  # row-major


def test_a_single_token_is_the_mean() -> None:
    grid_BHWD = torch.randn(2, 4, 4, 3)
    torch.testing.assert_close(pool_to_queries(grid_BHWD, 1)[:, 0], grid_BHWD.mean((1, 2)))


def test_a_grid_too_small_for_the_tokens_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"num_latent_tokens 256 needs .* 8 x 16 parts; it is 8 x 8"
    ):
        QFormerEncoder(CONFIG.model_copy(update={"num_latent_tokens": 256}), 8)


def test_every_grid_query_starts_as_token_0() -> None:
    decoder = QFormerDecoder(CONFIG, 4)
    starts: list[torch.Tensor] = []
    decoder.transformer[0].register_forward_pre_hook(lambda _, inputs: starts.append(inputs[0]))
    z_BTC = torch.randn(2, 8, 6)
    decoder(z_BTC)
    token_0 = decoder.decoder_embed(decoder.ln_pre(z_BTC))[:, :1]
    torch.testing.assert_close(starts[0], token_0.expand(2, 16, 16))


def test_the_stream_is_taken_right_after_its_layer() -> None:
    decoder = QFormerDecoder(CONFIG, 4)
    outputs: list[torch.Tensor] = []
    for layer in decoder.transformer:
        layer.register_forward_hook(lambda *call: outputs.append(call[-1]))
    z_BTC = torch.randn(2, 8, 6)
    grid, stream = decoder(z_BTC, stream_after=1)
    assert grid.shape == (2, 6, 4, 4)
    assert torch.equal(stream, outputs[0])
    assert decoder(z_BTC)[1] is None


def test_positions_reach_queries_and_keys_only() -> None:
    encoder = QFormerEncoder(CONFIG, 4)
    layer = encoder.transformer[0]
    values: list[torch.Tensor] = []
    layer.multihead_attn.register_forward_pre_hook(lambda _, inputs: values.append(inputs[2]))
    spatial = torch.randn(1, 6, 4, 4)
    before = encoder(spatial)
    nn.init.normal_(encoder.positional_embedding, std=3)
    after = encoder(spatial)
    assert torch.equal(values[0], values[1])
    assert not torch.allclose(before, after)


def test_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    plain = QFormerEncoder(CONFIG, 4)
    recomputing = QFormerEncoder(CONFIG, 4, recompute=True)
    recomputing.load_state_dict(plain.state_dict())
    spatial = torch.randn(2, 6, 4, 4)
    for module in (plain, recomputing):
        module(spatial).square().sum().backward()
    for (name, expected), actual in zip(
        plain.named_parameters(), recomputing.parameters(), strict=True
    ):
        assert torch.equal(actual.grad, expected.grad), name
