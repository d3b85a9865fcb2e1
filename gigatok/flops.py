"""FLOPs in closed form, of components and training steps. Imports no torch.

They are what torch's FLOP counter counts: 2 per multiply-add of a matrix product, a convolution
or attention, the causal half that a kernel may leave out included; everything else is free. The
numbers of components are of the forward pass of one image. A trained layer's backward pass is
twice that, of which half leads to its input. Attention is that of its plain form: fused kernels
compute the scores again in the backward pass, which no utilisation should be credited with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise

from gigatok.config import (
    CNNConfig,
    GeneratorArchitecture,
    TokenizerArchitecture,
    TokenizerConfig,
    TransformerSize,
)
from gigatok.frozen_flops import (
    attention,
    conv,
    discriminator,
    linear,
    lpips,
    lpips_heads,
    mlp,
    teacher_cost,
)
from gigatok.sizes import ATTENTIONS, ffn_width


@dataclass(frozen=True)
class TokenizerFLOPs:
    """Forward pass of one image by component.

    Attributes:
        cnn_encoder: image to grid.
        to_tokens: transformer from grid to tokens.
        project_in: to the codebook's width.
        lookup: cosines to all codes.
        entropy: the same with gradients, for the entropy loss; 0 without.
        project_out: from the codebook's width.
        to_grid: transformer from tokens to grid.
        cnn_decoder: grid to image.
        head: the MLP of semantic regularisation.
    """

    cnn_encoder: int
    to_tokens: int
    project_in: int
    lookup: int
    entropy: int
    project_out: int
    to_grid: int
    cnn_decoder: int
    head: int

    @property
    def encode(self) -> int:
        """Image to codes."""
        return self.latents + self.lookup

    @property
    def latents(self) -> int:
        """Image to latents before quantisation."""
        return self.cnn_encoder + self.to_tokens + self.project_in

    @property
    def decode(self) -> int:
        """Codes to image."""
        return self.project_out + self.to_grid + self.cnn_decoder

    @property
    def forward(self) -> int:
        """In training."""
        return sum(int(getattr(self, part.name)) for part in fields(self))


def tokenizer_flops(config: TokenizerArchitecture, image_size: int) -> TokenizerFLOPs:
    """Of `gigatok.models.tokenizer.Tokenizer` on one image."""
    z, dim = config.cnn.z_channels, config.codebook_dim
    cells = (image_size // config.cnn.downsampling) ** 2
    tokens = config.tokens_per_image(image_size)
    lookup = linear(tokens, dim, config.codebook_size)
    to_tokens, to_grid = _transformers(config, tokens, cells)
    return TokenizerFLOPs(
        cnn_encoder=cnn_encoder_flops(config.cnn, image_size),
        to_tokens=to_tokens,
        project_in=linear(tokens, z, dim),
        lookup=lookup,
        entropy=lookup if config.entropy_weight > 0 else 0,
        project_out=linear(tokens, dim, z),
        to_grid=to_grid,
        cnn_decoder=cnn_decoder_flops(config.cnn, image_size),
        head=_head(config) if config.semantic_weight > 0 else 0,
    )


def cnn_encoder_flops(cnn: CNNConfig, image_size: int) -> int:
    """Of `gigatok.models.cnn.Encoder`."""
    side = image_size // cnn.patch_size
    widths = [cnn.channels * m for m in cnn.multipliers]
    total = _stem(cnn, image_size)
    for level, (inputs, outputs) in enumerate(pairwise([cnn.channels, *widths])):
        total += _resblocks(side**2, inputs, outputs, cnn.resblocks)
        if level < len(widths) - 1:
            side //= 2
            total += conv(side**2, outputs, outputs)
    top = widths[-1]
    middle = _resblocks(side**2, top, top, cnn.mid_blocks)
    return total + middle + conv(side**2, top, cnn.z_channels)


def cnn_decoder_flops(cnn: CNNConfig, image_size: int) -> int:
    """Of `gigatok.models.cnn.Decoder`."""
    side = image_size // cnn.downsampling
    widths = [cnn.channels * m for m in reversed(cnn.multipliers)]
    top, z = widths[0], cnn.z_channels
    total = conv(side**2, z, top) + _resblocks(side**2, top, top, cnn.mid_blocks)
    for level, (inputs, outputs) in enumerate(pairwise([top, *widths])):
        total += 2 * linear(1, z, inputs) if cnn.adaptive_norm else 0
        total += _resblocks(side**2, inputs, outputs, cnn.resblocks + 1)
        if level < len(widths) - 1:
            total += conv(side**2, outputs, 4 * outputs)
            side *= 2
    return total + _last_layer(cnn, image_size)


def _stem(cnn: CNNConfig, image_size: int) -> int:
    """The encoder's first convolution."""
    return conv((image_size // cnn.patch_size) ** 2, 3 * cnn.patch_size**2, cnn.channels)


def _last_layer(cnn: CNNConfig, image_size: int) -> int:
    """The decoder's last convolution."""
    width = cnn.channels * cnn.multipliers[0]
    return conv((image_size // cnn.patch_size) ** 2, width, 3 * cnn.patch_size**2)


def _resblocks(pixels: int, inputs: int, outputs: int, blocks: int) -> int:
    """Residual blocks in a row; the first changes the channels, with a 1x1 shortcut if they do."""
    if blocks == 0:
        return 0
    shortcut = conv(pixels, inputs, outputs, 1) if inputs != outputs else 0
    keeping = (2 * blocks - 1) * conv(pixels, outputs, outputs)
    return conv(pixels, inputs, outputs) + keeping + shortcut


def _transformers(config: TokenizerArchitecture, tokens: int, cells: int) -> tuple[int, int]:
    """From grid to tokens, and back."""
    z, encoder, decoder = config.cnn.z_channels, config.encoder, config.decoder
    to_tokens = linear(cells, z, encoder.width) + linear(tokens, encoder.width, z)
    to_grid = linear(tokens, z, decoder.width) + conv(cells, decoder.width, z)
    if config.variant == "1d":
        to_tokens += linear(tokens, encoder.width, encoder.width)
    to_tokens += encoder.layers * _layer(config, encoder, tokens, cells)
    to_grid += decoder.layers * _layer(config, decoder, cells, tokens)
    return to_tokens, to_grid


def _layer(config: TokenizerArchitecture, size: TransformerSize, queries: int, memory: int) -> int:
    d = size.width
    cross = attention(queries, memory, d) if _attentions(config) == 2 else 0
    return attention(queries, queries, d) + cross + mlp(queries, d)


def _attentions(config: TokenizerArchitecture) -> int:
    return ATTENTIONS["qformer" if config.variant == "1d" else config.transformer_layer]


def _head(config: TokenizerArchitecture) -> int:
    teacher, hidden = teacher_cost(config.teacher), 4 * config.decoder.width
    dim = config.teacher_components or teacher.dim
    per_cell = config.decoder.width * hidden + hidden**2 + hidden * dim
    return 2 * teacher.grid**2 * per_cell


def recomputed_flops(config: TokenizerArchitecture, image_size: int) -> int:
    """What activation checkpointing adds: the layers again, but for each one's last product."""
    cells = (image_size // config.cnn.downsampling) ** 2
    tokens = config.tokens_per_image(image_size)
    total = 0
    for size, queries, memory in (
        (config.encoder, tokens, cells),
        (config.decoder, cells, tokens),
    ):
        layer = _layer(config, size, queries, memory)
        total += size.layers * (layer - linear(queries, 4 * size.width, size.width))
    return total


@dataclass(frozen=True)
class TokenizerStep:
    """One image in a tokenizer's training step; FLOPs of forward and backward passes.

    Attributes:
        tokenizer: in every step.
        perceptual: LPIPS in every step.
        teacher: features that are not cached.
        shortcut: decoding around the bottleneck, in early steps.
        game: both turns of the adversarial game, in late steps.
    """

    tokenizer: int
    perceptual: int
    teacher: int
    shortcut: int
    game: int


def tokenizer_step_flops(
    config: TokenizerConfig, image_size: int, *, cached_teacher: bool = False
) -> TokenizerStep:
    """Of one image in a step of `train_tokenizer`, by what sets in when."""
    parts = tokenizer_flops(config, image_size)
    # The lookup has no backward pass, and the image needs no gradient.
    trained = 3 * parts.forward - 2 * parts.lookup - _stem(config.cnn, image_size)
    recomputed = recomputed_flops(config, image_size) if config.activation_checkpointing else 0
    perceptual = _perceptual(config, image_size)
    online = config.semantic_weight > 0 and not cached_teacher
    shortcut = 3 * parts.cnn_decoder + perceptual if config.shortcut_images else 0
    return TokenizerStep(
        tokenizer=trained + recomputed,
        perceptual=perceptual,
        teacher=teacher_cost(config.teacher).flops if online else 0,
        shortcut=shortcut,
        game=_game(config, image_size),
    )


def _perceptual(config: TokenizerConfig, image_size: int) -> int:
    """LPIPS: forward on both images, backward to the reconstruction."""
    if config.perceptual_weight == 0:
        return 0
    network = config.perceptual_network
    mean = _jittered(network, image_size, config.perceptual_jitter)
    return 3 * mean + 2 * lpips_heads(network)


@lru_cache(maxsize=256)
def _jittered(network: str, image_size: int, largest: int) -> int:
    """LPIPS' network on an image, averaged over its paddings."""
    sides = range(image_size, image_size + largest + 1)
    total = sum(lpips(network, height, width) for height in sides for width in sides)
    return total // len(sides) ** 2


def _game(config: TokenizerConfig, image_size: int) -> int:
    judge = discriminator(config.discriminator, image_size)
    adaptive = 0
    if config.adaptive_adversarial_weight and config.discriminator != "none":
        # Gradients of both losses at the last layer, beside those of the step.
        backward = judge.backward + 2 * _last_layer(config.cnn, image_size)
        adaptive = backward + _perceptual(config, image_size) // 3
    return judge.judged + judge.turn + adaptive


def generator_flops(
    config: GeneratorArchitecture, codebook_size: int, num_tokens: int, layers: int | None = None
) -> int:
    """Forward pass of all tokens of an image; of the first `layers` blocks alone if given."""
    blocks = (config.size.layers if layers is None else layers) * _block(config, num_tokens)
    return blocks + (linear(num_tokens, config.size.width, codebook_size) if layers is None else 0)


def _block(config: GeneratorArchitecture, num_tokens: int) -> int:
    d = config.size.width
    hidden = ffn_width(d, config.ffn_multiple_of)
    return attention(num_tokens, num_tokens, d) + 3 * linear(num_tokens, d, hidden)


def generator_training_flops(
    config: GeneratorArchitecture, codebook_size: int, num_tokens: int, *, recompute: bool = False
) -> int:
    """Forward and backward pass of one image, with activation checkpointing if `recompute`."""
    total = 3 * generator_flops(config, codebook_size, num_tokens)
    if not recompute:
        return total
    # With dropout a block's last saved tensor comes after its last product, so all is done again.
    d = config.size.width
    last = linear(num_tokens, ffn_width(d, config.ffn_multiple_of), d)
    saved = 0 if config.dropout else last
    return total + config.size.layers * (_block(config, num_tokens) - saved)


def sampling_flops(
    config: GeneratorArchitecture, codebook_size: int, num_tokens: int, *, guided: bool
) -> int:
    """Draw the codes of an image with a KV cache; guidance runs a copy without class."""
    total = sum(
        sampled_token_flops(config, codebook_size, position, guided=guided)
        for position in (0, num_tokens - 1)
    )
    return total * num_tokens // 2  # linear in the position


def sampled_token_flops(
    config: GeneratorArchitecture, codebook_size: int, position: int, *, guided: bool
) -> int:
    """Draw the code at a position, counted from 0."""
    d = config.size.width
    # The products of one token with itself are replaced by those with all cached ones.
    layer = _block(config, 1) + 4 * position * d
    copies = 2 if guided else 1
    return copies * (config.size.layers * layer + linear(1, d, codebook_size))
