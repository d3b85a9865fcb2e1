"""Layouts of tokenizers: their layers and what they cost. Imports no torch.

That of the published one, `gigatok.models.tokenizer.tokenizer.GigaTok`, is in the order of the
forward pass, so that it can be read beside the modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from pkgutil import resolve_name
from typing import Generic, TypeVar

from gigatok.config import CNNConfig, TokenizerArchitecture, TransformerSize
from gigatok.config.kinds.tokenizers import TOKENIZERS
from gigatok.models.layers import (
    Layer,
    Layers,
    attention,
    conv,
    fleeting,
    flops,
    layer_norm,
    linear,
    map_norm,
    mlp,
    parameters,
    table,
    together,
    transformer_layer,
    values,
    vit_layer,
)
from gigatok.models.quantizers.layout import quantizer_layout

T = TypeVar("T", int, Layers)
MEASURED = "gigatok.models.tokenizer.measured:layout"
"""Layout of architectures that have none of their own."""


@dataclass(frozen=True)
class TokenizerParts(Generic[T]):
    """Tokenizer by component: the layers of each, or a sum over them.

    The names are those of the published architecture. Others put what they have before the
    quantizer into `cnn_encoder`, and what they have behind it into `cnn_decoder`.

    Attributes:
        cnn_encoder: image to grid; its first layer has no gradient to compute for the image.
        to_tokens: transformer from grid to tokens.
        project_in: to the quantizer's width.
        codebook: the quantizer: its codes, and the search among them.
        entropy: products of its losses, with gradients; nothing where there are none.
        project_out: from the quantizer's width.
        to_grid: transformer from tokens to grid.
        head: the MLP of semantic regularisation, which only training uses.
        cnn_decoder: grid to image; its last layer is the one that makes the image.
    """

    cnn_encoder: T
    to_tokens: T
    project_in: T
    codebook: T
    entropy: T
    project_out: T
    to_grid: T
    head: T
    cnn_decoder: T

    @property
    def encoder(self) -> T:
        """Parts from image to latents before quantisation."""
        return self.cnn_encoder + self.to_tokens + self.project_in

    @property
    def encode(self) -> T:
        """Parts from image to codes."""
        return self.encoder + self.codebook

    @property
    def decoder(self) -> T:
        """Parts from codes to image."""
        return self.project_out + self.to_grid + self.cnn_decoder

    @property
    def total(self) -> T:
        """All parts in order. Published counts of parameters include the head, so this does."""
        inside = self.encode + self.entropy + self.project_out
        return inside + self.to_grid + self.head + self.cnn_decoder


def tokenizer_parameters(
    config: TokenizerArchitecture, image_size: int, teacher_dim: int | None = None
) -> TokenizerParts[int]:
    """Count the parameters of a tokenizer; buffers do not count."""
    return _counted(parameters, tokenizer_layout(config, image_size, teacher_dim))


def tokenizer_flops(config: TokenizerArchitecture, image_size: int) -> TokenizerParts[int]:
    """Count the FLOPs of one image's forward pass."""
    return _counted(flops, tokenizer_layout(config, image_size))


def _counted(
    count: Callable[[Layers], int], layout: TokenizerParts[Layers]
) -> TokenizerParts[int]:
    names = [field.name for field in fields(layout)]
    return TokenizerParts(**{name: count(getattr(layout, name)) for name in names})


def tokenizer_layout(
    config: TokenizerArchitecture, image_size: int, teacher_dim: int | None = None
) -> TokenizerParts[Layers]:
    """Describe a tokenizer and those of its losses that have no network.

    A kind that does not describe itself is measured (`gigatok.models.tokenizer.measured`).

    Args:
        config: architecture.
        image_size: side of the images, in pixels.
        teacher_dim: channels of the teacher's features, if not those of the config's teacher.
    """
    layout = TOKENIZERS[config.architecture.name].layout or MEASURED
    described: TokenizerParts[Layers] = resolve_name(layout)(config, image_size, teacher_dim)
    return described


def gigatok(
    config: TokenizerArchitecture, image_size: int, teacher_dim: int | None
) -> TokenizerParts[Layers]:
    """Describe `GigaTok`."""
    z, dim = config.cnn.z_channels, config.code_shape.dim
    tokens = config.tokens_per_image(image_size)
    cells = (image_size // config.cnn.downsampling) ** 2
    quantizer = quantizer_layout(config, tokens)
    return TokenizerParts(
        cnn_encoder=_cnn_encoder(config.cnn, image_size),
        to_tokens=tuple(_to_tokens(config, tokens, cells)),
        project_in=(linear(tokens, z, dim),),
        codebook=quantizer.codebook,
        entropy=quantizer.losses,
        project_out=(linear(tokens, dim, z),),
        to_grid=tuple(_to_grid(config, tokens, cells)),
        head=(_head(config, teacher_dim),) if config.semantic_weight > 0 else (),
        cnn_decoder=_cnn_decoder(config.cnn, image_size),
    )


# Cached, as many trials share the CNNs and differ in how they train.
@lru_cache(maxsize=256)
def _cnn_encoder(cnn: CNNConfig, image_size: int) -> Layers:
    """Describe `gigatok.models.tokenizer.cnn.Encoder`."""
    side, colours = image_size // cnn.patch_size, 3 * cnn.patch_size**2
    widths = [cnn.channels * m for m in cnn.multipliers]
    stem = together(
        # The image; with patches also its rearranged copy.
        values((1 if cnn.patch_size == 1 else 2) * 3 * image_size**2),
        conv(side**2, colours, cnn.channels),
        scratch=2 * side**2 * cnn.channels,
    )
    layers = [stem]
    for level, (inputs, outputs) in enumerate(pairwise([cnn.channels, *widths])):
        layers += _resblocks(side**2, inputs, outputs, cnn.resblocks)
        if level < len(widths) - 1:
            padded, side = outputs * (side + 1) ** 2, side // 2  # on two sides only
            down = conv(side**2, outputs, outputs)
            layers.append(together(values(padded), down, scratch=2 * padded))
    layers += _resblocks(side**2, widths[-1], widths[-1], cnn.mid_blocks)
    return *layers, _last_convolution(side**2, widths[-1], cnn.z_channels)


@lru_cache(maxsize=256)
def _cnn_decoder(cnn: CNNConfig, image_size: int) -> Layers:
    """Describe `gigatok.models.tokenizer.cnn.Decoder`."""
    side, colours, z = image_size // cnn.downsampling, 3 * cnn.patch_size**2, cnn.z_channels
    widths = [cnn.channels * m for m in reversed(cnn.multipliers)]
    top = widths[0]
    layers = [together(conv(side**2, z, top), scratch=2 * side**2 * top)]
    layers += _resblocks(side**2, top, top, cnn.mid_blocks)
    for level, (inputs, outputs) in enumerate(pairwise([top, *widths])):
        if cnn.adaptive_norm:
            layers.append(_adaptive_norm(side**2, inputs, z))
        layers += _resblocks(side**2, inputs, outputs, cnn.resblocks + 1)
        if level < len(widths) - 1:
            up = conv(side**2, outputs, 4 * outputs)
            layers.append(together(up, scratch=2 * up.kept))
            side *= 2
    last = together(
        _last_convolution(side**2, widths[-1], colours),
        # The difference to the image that the loss squares; with patches the image put together.
        values((1 if cnn.patch_size == 1 else 2) * 3 * image_size**2),
        scratch=2 * side**2 * widths[-1],
    )
    return *layers, last


def _resblocks(pixels: int, inputs: int, outputs: int, blocks: int) -> Iterator[Layer]:
    """Describe residual blocks in a row, of which the first changes the channels."""
    for _ in range(blocks):
        changed = [fleeting(conv(pixels, inputs, outputs, 1))] if inputs != outputs else []
        yield together(
            map_norm(pixels, inputs),
            values(pixels * inputs),  # SiLU
            conv(pixels, inputs, outputs),
            map_norm(pixels, outputs),
            values(pixels * outputs),  # SiLU
            conv(pixels, outputs, outputs),  # kept is its sum with the shortcut
            *changed,
            scratch=3 * pixels * outputs,  # gradients of the output, and around a SiLU
        )
        inputs = outputs


def _adaptive_norm(pixels: int, channels: int, style: int) -> Layer:
    """Describe a norm whose scale and bias come from the style, of which there is one."""
    scale_and_bias = fleeting(linear(1, style, 2 * channels))
    normed = pixels * channels
    # Kept is the map before and after scaling; to these come gradients of both, and a product.
    return together(scale_and_bias, values(2 * normed), scratch=3 * normed)


def _last_convolution(pixels: int, inputs: int, outputs: int) -> Layer:
    """Describe what ends either CNN: norm, SiLU, convolution."""
    return together(
        map_norm(pixels, inputs),
        values(pixels * inputs),  # SiLU
        conv(pixels, inputs, outputs),
        scratch=2 * pixels * inputs,
    )


def _to_tokens(config: TokenizerArchitecture, tokens: int, cells: int) -> Iterator[Layer]:
    """Describe `QFormerEncoder` or `ViTEncoder`: the embedding, the layers, the projection."""
    size, z, d = config.encoder, config.cnn.z_channels, config.encoder.width
    embed = [layer_norm(cells, z), linear(cells, z, d), table(cells, d)]
    if config.variant == "1d":
        embed += [
            values(cells * d),  # keys: the memory plus its positions
            values(tokens * d),  # queries pooled from the memory
            linear(tokens, d, d),
            table(tokens, d),
        ]
    yield together(*embed, scratch=2 * cells * d)
    yield from [_transformer_layer(config, size, tokens, cells)] * size.layers
    yield together(layer_norm(tokens, d), linear(tokens, d, z), scratch=2 * tokens * d)


def _to_grid(config: TokenizerArchitecture, tokens: int, cells: int) -> Iterator[Layer]:
    """Describe `QFormerDecoder` or `ViTDecoder`: the embedding, the layers, the convolution."""
    size, z, d = config.decoder, config.cnn.z_channels, config.decoder.width
    embed = [layer_norm(tokens, z), linear(tokens, z, d), table(cells, d)]
    if config.variant == "1d":
        embed += [values(tokens * d), table(tokens, d)]  # keys: the memory plus its positions
    yield together(*embed, scratch=2 * tokens * d)
    yield from [_transformer_layer(config, size, cells, tokens)] * size.layers
    yield together(layer_norm(cells, d), conv(cells, d, z), scratch=2 * cells * d)


def _transformer_layer(
    config: TokenizerArchitecture, size: TransformerSize, queries: int, memory: int
) -> Layer:
    """Describe a layer of the config's type, from the stream of queries to the stream."""
    kind = "qformer" if config.variant == "1d" else config.transformer_layer
    d, row = size.width, queries * size.width
    if kind == "vit":
        return vit_layer(queries, d, size.heads)
    # Positions are added to queries and keys, which are then kept beside the values.
    itself = [layer_norm(queries, d), values(row), attention(queries, queries, d, size.heads)]
    if kind == "double_attention":
        other = itself
    else:
        # The normed stream is needed with positions only: one row, not two.
        other = [layer_norm(queries, d), attention(queries, memory, d, size.heads)]
        if config.variant == "2d":
            other.append(values(row))  # keys: the layer's own input plus positions
    return transformer_layer(
        *itself,
        *other,
        layer_norm(queries, d),
        mlp(queries, d),
        last=linear(queries, 4 * d, d),
    )


def _head(config: TokenizerArchitecture, teacher_dim: int | None) -> Layer:
    """Describe the MLP to teacher features, on the stream pooled to the teacher's grid."""
    teacher, d = config.teacher_cost, config.decoder.width
    hidden, places = 4 * d, teacher.grid**2
    dim = teacher_dim or config.teacher_components or teacher.dim
    return together(
        values(places * d),  # the pooled stream
        linear(places, d, hidden),
        values(places * hidden),  # SiLU
        linear(places, hidden, hidden),
        values(places * hidden),  # SiLU
        linear(places, hidden, dim),
        values(3 * places * dim),  # both sides of the cosine at unit length, and their product
        scratch=2 * places * hidden,
    )
