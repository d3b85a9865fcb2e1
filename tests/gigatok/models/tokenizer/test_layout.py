"""Parameters and FLOPs of the tokenizer's layout against the module, on the meta device."""

from __future__ import annotations

import pytest
from torch import nn

from gigatok.models.tokenizer.layout import tokenizer_flops, tokenizer_parameters
from tests.gigatok.counted_flops import SHAPES, SIDE, architecture, counted, meta, tokenizer


@pytest.mark.heavy
@pytest.mark.parametrize("shape", SHAPES)
def test_every_component_of_a_tokenizer(shape: str) -> None:
    config = architecture(shape)
    predicted, model = tokenizer_flops(config, SIDE), tokenizer(config)
    cells, tokens = model.grid_size, config.tokens_per_image(SIDE)
    z, dim, width = config.cnn.z_channels, config.code_shape.dim, config.decoder.width
    grid, latents = meta(1, z, cells, cells), meta(1, tokens, z)
    head = model.to_grid.distill_mlp
    assert head is not None
    assert predicted.cnn_encoder == counted(lambda: model.encoder(meta(1, 3, SIDE, SIDE)))
    assert predicted.to_tokens == counted(lambda: model.to_tokens(grid))
    assert predicted.project_in == counted(lambda: model.quant_conv(latents))
    assert predicted.codebook == counted(lambda: model.quantize.nearest(meta(1, tokens, dim)))
    cosines = counted(lambda: model.quantize(meta(1, tokens, dim)))
    assert predicted.codebook + predicted.entropy == cosines
    assert predicted.project_out == counted(lambda: model.post_quant_conv(meta(1, tokens, dim)))
    assert predicted.to_grid == counted(lambda: model.to_grid(latents))
    assert predicted.cnn_decoder == counted(lambda: model.decoder(grid))
    assert predicted.head == counted(lambda: head(meta(1, 16, width)))


def sized(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module for p in module.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_of_components(shape: str) -> None:
    config = architecture(shape)
    predicted, model = tokenizer_parameters(config, SIDE), tokenizer(config)
    assert predicted.cnn_encoder == sized(model.encoder)
    assert predicted.to_tokens == sized(model.to_tokens)
    assert predicted.encoder == sized(model.encoder, model.to_tokens, model.quant_conv)
    assert predicted.codebook == sized(model.quantize)
    assert predicted.to_grid + predicted.head == sized(model.to_grid)
    assert predicted.head == sized(model.to_grid.distill_mlp)
    assert predicted.cnn_decoder == sized(model.decoder)
    assert predicted.total == sized(model)
