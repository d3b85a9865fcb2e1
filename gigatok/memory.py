"""Peak memory of training steps in closed form. Imports no torch.

Memory is what tensors take: parameters, gradients, Adam's two moments, averages, and what eager
autograd keeps for the backward pass, as the layers of `gigatok.models` are written. The peak is
looked for along the backward pass, in which kept values go as gradients come. The allocator's
waste, compilers and a process's own memory are not in it. Mixed precision keeps many values in
half the bytes; it is counted as fp32, which is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gigatok.config import (
    CNNConfig,
    GeneratorArchitecture,
    GeneratorConfig,
    TokenizerArchitecture,
    TokenizerConfig,
    TrainingConfig,
    TransformerSize,
)
from gigatok.frozen_flops import teacher_cost
from gigatok.sizes import ATTENTIONS, ffn_width

FLOAT = 4
"""Bytes."""
ADAM_MOMENTS = 2


@dataclass(frozen=True)
class Piece:
    """A few layers of a model; numbers of float32 values, per image unless said otherwise.

    Attributes:
        kept: held from the forward to the backward pass.
        parameters: in all, whose gradients its backward pass makes.
        scratch: beside these while its backward pass, or the end of the forward pass, runs.
        stream: of a transformer layer, its output, all that activation checkpointing keeps.
    """

    kept: int
    parameters: int = 0
    scratch: int = 0
    stream: int = 0

    def recomputed(self) -> Piece:
        """With activation checkpointing: what a layer keeps comes back in its turn."""
        if self.stream == 0:
            return self
        again = self.kept - self.stream
        return Piece(self.stream, self.parameters, self.scratch + again, self.stream)


def backward_peak(pieces: Sequence[Piece], images: int, *, accumulates: bool) -> int:
    """Most values at once in a backward pass over the pieces, parameters left out.

    Args:
        pieces: in the order of the forward pass.
        images: of a micro-batch.
        accumulates: gradients of an earlier micro-batch are there already.
    """
    total = sum(piece.parameters for piece in pieces)
    kept, gradients, peak = images * sum(piece.kept for piece in pieces), 0, 0
    for piece in reversed(pieces):
        gradients += piece.parameters
        # A gradient that is added to another exists twice for a moment: at most a piece's.
        there = total + piece.parameters if accumulates else gradients
        peak = max(peak, kept + there + images * piece.scratch)
        kept -= images * piece.kept
    return peak


def training_memory(
    config: TrainingConfig, pieces: Sequence[Piece], world: int = 1, extra: int = 0
) -> int:
    """Peak bytes per device of one model's part of a step.

    Args:
        config: batch size, micro-batch, averages, activation checkpointing, sharding.
        pieces: of the model and its losses.
        world: processes that share the batch, and with fsdp the model.
        extra: bytes that are there all the time.
    """
    share = -(-config.batch_size // world)
    images = min(config.micro_batch or share, share)
    if config.activation_checkpointing:
        pieces = [piece.recomputed() for piece in pieces]
    parameters = sum(piece.parameters for piece in pieces)
    copies = 1 + ADAM_MOMENTS + (config.ema_decay > 0)
    peak = backward_peak(pieces, images, accumulates=share > images)
    if config.parallel == "fsdp" and world > 1:
        # Each process holds a part of all copies and gradients, and two pieces as a whole.
        whole = 2 * max(piece.parameters for piece in pieces)
        held = (copies + 1) * parameters // world + whole
        return FLOAT * (held + images * _activations(pieces)) + extra
    return FLOAT * (copies * parameters + peak) + extra


def _activations(pieces: Sequence[Piece]) -> int:
    """Most values of one image at once, gradients of parameters left out."""
    bare = [Piece(piece.kept, 0, piece.scratch) for piece in pieces]
    return backward_peak(bare, 1, accumulates=False)


def generator_training_memory(
    config: GeneratorConfig, codebook_size: int, num_classes: int, num_tokens: int, world: int = 1
) -> int:
    """Peak bytes per device of a step of `train_generator`."""
    pieces = generator_pieces(config, codebook_size, num_classes, num_tokens)
    return training_memory(config, pieces, world)


def generator_pieces(
    config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
) -> list[Piece]:
    """Of `gigatok.models.generator.Generator` and its loss."""
    d, hidden = (
        config.size.width,
        num_tokens * ffn_width(config.size.width, config.ffn_multiple_of),
    )
    row, logits = num_tokens * d, num_tokens * codebook_size
    mask = row if config.dropout else 0
    positions = num_tokens + 1 if config.position == "learned" else 0
    rotated = 2 * row if config.position == "rope_2d" else 0
    # Scaled input and output of two norms; q, k, v; what was attended to; the stream twice.
    kept = 10 * row + 4 * hidden + 2 * mask + rotated + num_tokens * config.size.heads
    block = 4 * d**2 + 3 * d * ffn_width(d, config.ffn_multiple_of) + 2 * d
    layer = Piece(kept, block, row + 2 * hidden, row)
    # Log-probabilities are kept; the gradients of them and of the logits come together.
    loss = Piece(2 * row + logits, (codebook_size + 1) * d, 2 * logits)
    rows = (codebook_size + num_classes + 1 + positions) * d
    return [Piece(row + mask, rows, row), *[layer] * config.size.layers, loss]


def tokenizer_training_memory(
    config: TokenizerConfig, image_size: int, world: int = 1, *, cached_teacher: bool = False
) -> int:
    """Peak bytes per device of a step of `train_tokenizer`, LPIPS and both turns included."""
    pieces, judge = tokenizer_pieces(config, image_size), _patchgan(image_size)
    extra = 3 * FLOAT * config.usage_window  # the window of codes, and its copies when it moves
    if config.perceptual_weight > 0:
        pieces.append(_lpips(config.perceptual_network, image_size))
        extra += FLOAT * _FROZEN[config.perceptual_network]
    if config.semantic_weight > 0 and not cached_teacher:
        extra += FLOAT * _FROZEN.get(config.teacher, 0)
    if config.discriminator == "none":
        return training_memory(config, pieces, world, extra)
    if config.discriminator == "dino":
        judge, extra = _dino_heads(), extra + FLOAT * _FROZEN["dino"]
    else:
        # A convolution of channels-last images lays its kernel out anew, twice over.
        extra += 2 * FLOAT * _PATCHGAN_KERNEL
    # Gradients of one side stay while the other has its turn; averages are of the tokenizer.
    parameters = sum(piece.parameters for piece in pieces)
    copies = 1 + ADAM_MOMENTS + (config.ema_decay > 0)
    held = FLOAT * (1 + ADAM_MOMENTS + 1) * judge.parameters
    watched = Piece(judge.kept, 0, judge.scratch)
    own = training_memory(config, [*pieces, watched], world, extra + held)
    images = -(-config.batch_size // world)
    shown = 6 * image_size**2
    turn = backward_peak(
        [Piece(2 * judge.kept + shown, 0, judge.scratch)], images, accumulates=False
    )
    return max(own, FLOAT * ((copies + 1) * parameters + turn) + extra + held)


def tokenizer_pieces(config: TokenizerArchitecture, image_size: int) -> list[Piece]:
    """Of `gigatok.models.tokenizer.Tokenizer` and the losses without a network."""
    tokens = config.tokens_per_image(image_size)
    cells = (image_size // config.cnn.downsampling) ** 2
    z, dim = config.cnn.z_channels, config.codebook_dim
    logits = tokens * config.codebook_size
    undecided = config.entropy_weight > 0
    quantizer = Piece(
        tokens * (z + 12 * dim) + (2 * logits if undecided else 0),
        _linear(z, dim) + config.codebook_size * dim + _linear(dim, z),
        (3 if undecided else 1) * logits,
    )
    return [
        *_cnn_encoder(config.cnn, image_size),
        *_to_tokens(config, tokens, cells),
        quantizer,
        *_to_grid(config, tokens, cells),
        *_cnn_decoder(config.cnn, image_size),
    ]


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv3(inputs: int, outputs: int) -> int:
    return 9 * inputs * outputs + outputs


def _resblocks(pixels: int, inputs: int, outputs: int, blocks: int) -> Iterator[Piece]:
    """Each keeps its norms' outputs, what SiLU makes of them, and both convolutions' outputs."""
    for _ in range(blocks):
        shortcut = _linear(inputs, outputs) if inputs != outputs else 0
        parameters = 2 * (inputs + outputs) + _conv3(inputs, outputs) + _conv3(outputs, outputs)
        kept = pixels * (2 * inputs + 4 * outputs)
        yield Piece(kept, parameters + shortcut, 3 * pixels * outputs)
        inputs = outputs


def _cnn_encoder(cnn: CNNConfig, image_size: int) -> Iterator[Piece]:
    side, colours = image_size // cnn.patch_size, 3 * cnn.patch_size**2
    widths = [cnn.channels * m for m in cnn.multipliers]
    images = 1 if cnn.patch_size == 1 else 2
    kept = 3 * images * image_size**2 + side**2 * cnn.channels
    yield Piece(kept, _conv3(colours, cnn.channels), 2 * side**2 * cnn.channels)
    for level, (inputs, outputs) in enumerate(pairwise([cnn.channels, *widths])):
        yield from _resblocks(side**2, inputs, outputs, cnn.resblocks)
        if level < len(widths) - 1:
            padded, side = outputs * (side + 1) ** 2, side // 2
            yield Piece(padded + outputs * side**2, _conv3(outputs, outputs), 2 * padded)
    top, pixels, z = widths[-1], side**2, cnn.z_channels
    yield from _resblocks(pixels, top, top, cnn.mid_blocks)
    yield Piece(pixels * (2 * top + z), 2 * top + _conv3(top, z), 2 * pixels * top)


def _cnn_decoder(cnn: CNNConfig, image_size: int) -> Iterator[Piece]:
    side, colours, z = image_size // cnn.downsampling, 3 * cnn.patch_size**2, cnn.z_channels
    widths = [cnn.channels * m for m in reversed(cnn.multipliers)]
    top, last = widths[0], widths[-1]
    yield Piece(side**2 * top, _conv3(z, top), 2 * side**2 * top)
    yield from _resblocks(side**2, top, top, cnn.mid_blocks)
    for level, (inputs, outputs) in enumerate(pairwise([top, *widths])):
        if cnn.adaptive_norm:
            yield Piece(2 * side**2 * inputs, 2 * _linear(z, inputs), 3 * side**2 * inputs)
        yield from _resblocks(side**2, inputs, outputs, cnn.resblocks + 1)
        if level < len(widths) - 1:
            side *= 2
            kept = side**2 * outputs
            yield Piece(kept, _conv3(outputs, 4 * outputs), 2 * kept)
    images = 2 if cnn.patch_size == 1 else 3
    kept = 2 * side**2 * last + 3 * images * image_size**2
    yield Piece(kept, 2 * last + _conv3(last, colours), 2 * side**2 * last)


def _to_tokens(config: TokenizerArchitecture, tokens: int, cells: int) -> Iterator[Piece]:
    """The embedding, the layers, and the projection behind them."""
    size, z, d = config.encoder, config.cnn.z_channels, config.encoder.width
    embed = 2 * z + _linear(z, d)
    if config.variant == "1d":
        # The memory, with its positions too; pooled queries, and those behind a projection.
        kept = cells * (z + 2 * d) + 2 * tokens * d
        yield Piece(kept, embed + (cells + tokens) * d + _linear(d, d), 2 * cells * d)
    else:
        yield Piece(cells * (z + d), embed + cells * d, 2 * cells * d)
    yield from [_layer(config, size, tokens, cells)] * size.layers
    yield Piece(tokens * (d + z), 2 * d + _linear(d, z), 2 * tokens * d)


def _to_grid(config: TokenizerArchitecture, tokens: int, cells: int) -> Iterator[Piece]:
    """The embedding, the layers, what stands behind them, and the head."""
    size, z, d = config.decoder, config.cnn.z_channels, config.decoder.width
    embed = 2 * z + _linear(z, d)
    positions = cells + tokens if config.variant == "1d" else cells
    memory = 2 if config.variant == "1d" else 1
    yield Piece(tokens * (2 * z + memory * d), embed + positions * d, 2 * tokens * d)
    yield from [_layer(config, size, cells, tokens)] * size.layers
    yield Piece(cells * (d + z), 2 * d + _conv3(d, z), 2 * cells * d)
    if config.semantic_weight > 0:
        teacher, hidden = teacher_cost(config.teacher), 4 * d
        dim = config.teacher_components or teacher.dim
        head = _linear(d, hidden) + _linear(hidden, hidden) + _linear(hidden, dim)
        places = teacher.grid**2
        yield Piece(places * (d + 4 * hidden + 4 * dim), head, 2 * places * hidden)


def _layer(
    config: TokenizerArchitecture, size: TransformerSize, queries: int, memory: int
) -> Piece:
    """Norms' outputs with and without positions, q, k, v, what was attended to, the stream."""
    d, kind = size.width, "qformer" if config.variant == "1d" else config.transformer_layer
    row, attentions = queries * d, ATTENTIONS[kind]
    statistics = queries * (attentions * size.heads + 2 * (attentions + 1))
    first = 6 if kind == "vit" else 7
    second = {"vit": 0, "qformer": 4 * row + 2 * memory * d, "double_attention": 7 * row}[kind]
    keys = row if kind == "qformer" and config.variant == "2d" else 0
    kept = (first + 10) * row + second + keys + statistics
    mlp = _linear(d, 4 * d) + _linear(4 * d, d)
    parameters = attentions * (4 * _linear(d, d) + 2 * d) + mlp + 2 * d
    return Piece(kept, parameters, 9 * row, row)


def discriminator_parameters(kind: str, image_size: int) -> int:
    """Count the trained parameters of a discriminator, by its name in configs."""
    if kind == "none":
        return 0
    return (_dino_heads() if kind == "dino" else _patchgan(image_size)).parameters


_FROZEN = {
    "vgg": 14_714_688,
    "alex": 2_469_696,
    "dino": 21_665_664,
    "mobilenetv2": 2_223_872,
    "resnet50": 23_587_712,
    "dinov2": 86_580_480,
    "clip_dfn": 630_766_080,
    "siglip": 427_680_704,
}
"""Parameters of networks that are not trained."""


def _lpips(network: str, side: int) -> Piece:
    """Maps of the reconstruction, pooled ones with their int64 places, differences that count.

    At the end of the forward pass the compared maps of both images are there as well.
    """
    if network == "alex":
        return _alexnet(side)
    kept = 6 * side**2
    compared, channels = 0, 3
    for outputs, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        kept += 3 * channels * side**2 if channels > 3 else 0
        kept += (depth + 1) * outputs * side**2
        compared += outputs * side**2
        channels, side = outputs, side // 2
    return Piece(kept, 0, 2 * compared)


def _alexnet(side: int) -> Piece:
    kept, compared, channels = 6 * side**2, 0, 64
    side = (side - 7) // 4 + 1
    for outputs, pooled in ((64, False), (192, True), (384, True), (256, False), (256, False)):
        if pooled:
            side = (side - 3) // 2 + 1
            kept += 3 * channels * side**2
        kept += 2 * outputs * side**2
        compared += outputs * side**2
        channels = outputs
    return Piece(kept, 0, 2 * compared)


_PATCHGAN_KERNEL = 16 * 256 * 512
"""Values of its largest kernel."""


def _patchgan(side: int) -> Piece:
    """Outputs of convolutions, of batch norms and of activations, on one image."""
    kept, parameters, channels, largest = 0, 0, 3, 0
    for outputs, stride in ((64, 2), (128, 2), (256, 2), (512, 1), (1, 1)):
        side = (side - 2) // stride + 1
        normed = outputs not in (64, 1)
        kept += outputs * side**2 * (3 if normed else 2)
        parameters += 16 * channels * outputs + (2 * outputs if normed else outputs)
        largest, channels = max(largest, outputs * side**2), outputs
    return Piece(kept, parameters, 2 * largest)


def _dino_heads() -> Piece:
    """Backbone and heads, of which each keeps six maps of two blocks, at 224 pixels."""
    patches, width, layers, heads = 196, 384, 12, 5
    layer = (patches + 1) * (16 * width + 6 + 4)
    block = width * width + 3 * width, 9 * width * width + 3 * width, width + 1
    kept = layers * layer + heads * patches * width * 13
    return Piece(kept, heads * sum(block), 9 * (patches + 1) * width)
