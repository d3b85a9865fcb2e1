"""Published size tables, and parameter counts in closed form. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gigatok.config import CNNConfig, GeneratorArchitecture, TokenizerArchitecture, TransformerSize


@dataclass(frozen=True)
class TokenizerParameters:
    """Parameters of a tokenizer by part.

    Attributes:
        encoder: CNN encoder, 2D-to-1D Q-Former and projection to the codebook.
        codebook: rows of the codebook.
        decoder: projection from the codebook, 1D-to-2D Q-Former and CNN decoder.
        head: the MLP of semantic regularisation, which only training uses.
    """

    encoder: int
    codebook: int
    decoder: int
    head: int

    @property
    def total(self) -> int:
        """All parts, as published: the training-only head included."""
        return self.encoder + self.codebook + self.decoder + self.head


def ffn_width(width: int, multiple_of: int) -> int:
    """Hidden width of a generator's SwiGLU: 8/3 of the width, rounded up to a multiple."""
    return -(-(8 * width // 3) // multiple_of) * multiple_of


def tokenizer_parameters(
    config: TokenizerArchitecture, image_size: int, teacher_dim: int = 768
) -> TokenizerParameters:
    """Count the parameters of `gigatok.models.tokenizer.tokenizer.Tokenizer`; buffers do not count."""
    z, dim = config.cnn.z_channels, config.codebook_dim
    encoder, decoder = config.encoder, config.decoder
    grid = (image_size // config.cnn.downsampling) ** 2
    is_1d = config.variant == "1d"
    layer = "qformer" if is_1d else config.transformer_layer
    positions = grid + config.num_latent_tokens if is_1d else grid
    to_latents = _transformer(encoder, z, positions, layer) + _linear(encoder.width, z)
    if is_1d:
        to_latents += _linear(encoder.width, encoder.width)
    to_grid = _transformer(decoder, z, positions, layer) + _conv3(decoder.width, z)
    return TokenizerParameters(
        encoder=_cnn_encoder(config.cnn) + to_latents + _linear(z, dim),
        codebook=config.codebook_size * dim,
        decoder=_linear(dim, z) + to_grid + _cnn_decoder(config.cnn),
        head=_head(decoder.width, teacher_dim) if config.semantic_weight > 0 else 0,
    )


def generator_parameters(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> int:
    """Count the parameters of `gigatok.models.generator.generator.Generator`."""
    d = config.size.width
    block = 4 * d**2 + 3 * d * ffn_width(d, config.ffn_multiple_of) + 2 * d
    positions = num_tokens + 1 if config.position == "learned" else 0
    rows = 2 * codebook_size + (num_classes + 1) + positions
    return config.size.layers * block + rows * d + d


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv3(inputs: int, outputs: int) -> int:
    return 9 * inputs * outputs + outputs


def _resblocks(inputs: int, outputs: int, blocks: int) -> int:
    """Residual blocks in a row; the first changes the channels, with a 1x1 shortcut if they do."""
    change = 2 * inputs + _conv3(inputs, outputs) + 2 * outputs + _conv3(outputs, outputs)
    keep = 2 * (2 * outputs + _conv3(outputs, outputs))
    shortcut = _linear(inputs, outputs) if inputs != outputs else 0
    return change + shortcut + (blocks - 1) * keep if blocks else 0


def _cnn_encoder(cnn: CNNConfig) -> int:
    widths = [cnn.channels * m for m in cnn.multipliers]
    levels = sum(
        _resblocks(i, o, cnn.resblocks)
        for i, o in zip([cnn.channels, *widths[:-1]], widths, strict=True)
    )
    downsamplings = sum(_conv3(width, width) for width in widths[:-1])
    top = widths[-1]
    ends = _conv3(3 * cnn.patch_size**2, cnn.channels) + 2 * top + _conv3(top, cnn.z_channels)
    return ends + levels + downsamplings + _resblocks(top, top, cnn.mid_blocks)


def _cnn_decoder(cnn: CNNConfig) -> int:
    widths = [cnn.channels * m for m in reversed(cnn.multipliers)]
    top, last, z = widths[0], widths[-1], cnn.z_channels
    inputs = [top, *widths[:-1]]
    levels = sum(_resblocks(i, o, cnn.resblocks + 1) for i, o in zip(inputs, widths, strict=True))
    upsamplings = sum(_conv3(width, 4 * width) for width in widths[:-1])
    adaptive = sum(2 * _linear(z, i) for i in inputs) if cnn.adaptive_norm else 0
    ends = _conv3(z, top) + 2 * last + _conv3(last, 3 * cnn.patch_size**2)
    return ends + levels + upsamplings + adaptive + _resblocks(top, top, cnn.mid_blocks)


def _transformer(size: TransformerSize, z_channels: int, positions: int, layer: str) -> int:
    """Either direction: input norm and embedding, positions, layers, final norm."""
    d = size.width
    embed = 2 * z_channels + _linear(z_channels, d)
    return embed + positions * d + size.layers * _layer(d, ATTENTIONS[layer]) + 2 * d


ATTENTIONS = {"qformer": 2, "double_attention": 2, "vit": 1}
"""Attentions of a layer by its type."""


def _layer(d: int, attentions: int) -> int:
    """A norm before each attention and before the MLP of four times the width."""
    attention = 4 * _linear(d, d)
    mlp = _linear(d, 4 * d) + _linear(4 * d, d)
    return attentions * (attention + 2 * d) + mlp + 2 * d


def _head(width: int, teacher_dim: int) -> int:
    hidden = 4 * width
    return _linear(width, hidden) + _linear(hidden, hidden) + _linear(hidden, teacher_dim)
