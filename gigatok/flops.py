"""FLOPs in closed form, of components, training steps and stages. Imports no torch.

They are what torch's FLOP counter counts: 2 per multiply-add of a matrix product, a convolution
or attention, the causal half that a kernel may leave out included; everything else is free. The
numbers of components are of the forward pass of one image. A trained layer's backward pass is
twice that, of which half leads to its input. Attention is that of its plain form: fused kernels
compute the scores again in the backward pass, which no utilisation should be credited with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise

from gigatok.config import (
    CNNConfig,
    GeneratorArchitecture,
    ProbedFeatures,
    TokenizerArchitecture,
    TokenizerConfig,
    TransformerSize,
    TrialConfig,
)
from gigatok.frozen_flops import (
    attention,
    conv,
    discriminator,
    features,
    linear,
    lpips,
    lpips_heads,
    mlp,
    teacher_cost,
)
from gigatok.sizes import ATTENTIONS, ffn_width

CODEBOOK_INIT_IMAGES = 256
"""Images whose latents a codebook is initialised from."""
RESTARTS_END = 0.95
"""Dead codes are restarted in this first part of training."""
PICTURED_IMAGES = 8
"""Images that a trained tokenizer reconstructs for its picture."""


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
    """Of `gigatok.models.tokenizer.tokenizer.Tokenizer` on one image."""
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
    """Of `gigatok.models.tokenizer.cnn.Encoder`."""
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
    """Of `gigatok.models.tokenizer.cnn.Decoder`."""
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


def stage_flops(stage: str, trial: TrialConfig) -> float:
    """What a stage of a trial computes in all.

    What numpy computes of features (Gaussians, distances) and PSNR and SSIM are not in it.

    Raises:
        ValueError: no such stage.
    """
    if stage not in STAGE_FLOPS:
        raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGE_FLOPS)}")
    return float(STAGE_FLOPS[stage](trial))


def _train_tokenizer(trial: TrialConfig) -> int:
    config, side = trial.tokenizer, trial.data.image_size
    step = tokenizer_step_flops(config, side, cached_teacher=trial.uses_cached_teacher)
    in_shortcut = min(max(config.shortcut_end - 1, 0), config.steps)
    in_game = max(config.steps - config.discriminator_start + 1, 0)
    per_place = config.steps * (step.tokenizer + step.perceptual + step.teacher)
    per_place += in_shortcut * step.shortcut + in_game * step.game
    parts = tokenizer_flops(config, side)
    latents = CODEBOOK_INIT_IMAGES if config.codebook_init == "data" else 0
    latents = min(latents, trial.data.train_images)
    if config.dead_code_restart_every:
        last = int(RESTARTS_END * config.steps)
        restarts = last // config.dead_code_restart_every
        latents += restarts * config.batch_size
        if not trial.uses_cached_teacher and config.semantic_weight > 0:
            per_place += restarts * step.teacher
    pictures = min(PICTURED_IMAGES, trial.data.train_images) * (parts.encode + parts.decode)
    return config.batch_size * per_place + latents * parts.latents + pictures


def _extract_teacher_features(trial: TrialConfig) -> int:
    teacher = teacher_cost(trial.tokenizer.teacher)
    components = trial.tokenizer.teacher_components
    views = 2 if trial.tokenizer.augment == "flip" else 1
    # Covariance of the channels, then their projection.
    reduction = linear(teacher.grid**2, teacher.dim, teacher.dim + components)
    per_view = teacher.flops + (reduction if components else 0)
    return views * trial.data.train_images * per_view


def _features(trial: TrialConfig) -> int:
    evaluation = trial.evaluation
    return features(evaluation.network, evaluation.resolution, trial.data.image_size)


def _evaluate_reconstruction(trial: TrialConfig) -> int:
    parts, network = (
        tokenizer_flops(trial.tokenizer, trial.data.image_size),
        trial.evaluation.lpips_network,
    )
    per_image = parts.encode + parts.decode + _features(trial)
    if network != "none":
        side = trial.data.image_size
        per_image += 2 * lpips(network, side, side) + lpips_heads(network)
    return trial.evaluation.num_images * per_image


def _extract_codes(trial: TrialConfig) -> int:
    views = trial.codes.crops * (1 + trial.codes.flip)
    encoded = views * trial.data.train_images + trial.data.val_images
    return encoded * tokenizer_flops(trial.tokenizer, trial.data.image_size).encode


def _train_generator(trial: TrialConfig) -> int:
    config, codes = trial.generator, trial.tokenizer.codebook_size
    tokens = trial.tokenizer.tokens_per_image(trial.data.image_size)
    step = generator_training_flops(
        config, codes, tokens, recompute=config.activation_checkpointing
    )
    return config.steps * config.batch_size * step + _score_generator(trial)


def _score_generator(trial: TrialConfig) -> int:
    """Losses on the validation images and on as many of training."""
    tokens = trial.tokenizer.tokens_per_image(trial.data.image_size)
    scored = trial.data.val_images + min(trial.data.val_images, trial.data.train_images)
    return scored * generator_flops(trial.generator, trial.tokenizer.codebook_size, tokens)


def _search_guidance(trial: TrialConfig) -> int:
    """At most: a scale of 1 costs half, and a hill climb may end sooner."""
    drawn = trial.guidance.most_scales * trial.guidance.num_images + trial.sampling.num_images
    return drawn * _drawn(trial, trial.guidance.high)


def _drawn(trial: TrialConfig, cfg_scale: float) -> int:
    """Draw an image, and compute its features."""
    side, codes = trial.data.image_size, trial.tokenizer.codebook_size
    tokens = trial.tokenizer.tokens_per_image(side)
    per_image = sampling_flops(trial.generator, codes, tokens, guided=cfg_scale > 1)
    return per_image + tokenizer_flops(trial.tokenizer, side).decode + _features(trial)


def _linear_probe(trial: TrialConfig) -> int:
    size, probe, data = trial.generator.size, trial.probe, trial.data
    tokens = trial.tokenizer.tokens_per_image(data.image_size)
    views = trial.codes.crops * (1 + trial.codes.flip)
    layer = probe.layer or size.layers // 2
    read = generator_flops(trial.generator, trial.tokenizer.codebook_size, tokens, layer)
    head = linear(1, size.width, data.num_classes)
    passes = 2 * probe.epochs * data.train_images + data.val_images
    times = probe.epochs if probe.reference_dropout_quirk else views
    return (times * data.train_images + data.val_images) * read + passes * head


def _probe_tokenizer(trial: TrialConfig) -> int:
    """Features of all views, then as `linear_probe`, over the features' width."""
    config, probe, data = trial.tokenizer, trial.probe, trial.data
    views = trial.codes.crops * (1 + trial.codes.flip)
    width = probed_width(config, trial.tokenizer_probe.features)
    head = linear(1, width, data.num_classes)
    passes = 2 * probe.epochs * data.train_images + data.val_images
    read = _probed(config, trial.tokenizer_probe.features, data.image_size)
    return (views * data.train_images + data.val_images) * read + passes * head


def probed_width(config: TokenizerArchitecture, features: ProbedFeatures) -> int:
    """Channels of the features that `probe_tokenizer` reads of a tokenizer."""
    widths = {
        "none": 0,
        "encoder": config.encoder.width,
        "latents": config.cnn.z_channels,
        "decoder": config.decoder.width,
    }
    return widths[features]


def _probed(config: TokenizerArchitecture, features: str, image_size: int) -> int:
    """Forward pass of one image up to the features."""
    parts = tokenizer_flops(config, image_size)
    z, tokens = config.cnn.z_channels, config.tokens_per_image(image_size)
    if features == "encoder":
        return parts.cnn_encoder + parts.to_tokens - linear(tokens, config.encoder.width, z)
    if features == "latents":
        return parts.cnn_encoder + parts.to_tokens
    # The whole decoder runs, of which the stream after one layer is taken.
    return parts.encode + parts.project_out + parts.to_grid


STAGE_FLOPS: dict[str, Callable[[TrialConfig], int]] = {
    "extract_teacher_features": _extract_teacher_features,
    "extract_reference_features": lambda trial: trial.evaluation.num_images * _features(trial),
    "train_tokenizer": _train_tokenizer,
    "adopt_tokenizer": lambda trial: 0,
    "evaluate_reconstruction": _evaluate_reconstruction,
    "extract_codes": _extract_codes,
    "train_generator": _train_generator,
    "adopt_generator": _score_generator,
    "evaluate_generation": lambda t: t.sampling.num_images * _drawn(t, t.sampling.cfg_scale),
    "search_guidance": _search_guidance,
    "linear_probe": _linear_probe,
    "probe_tokenizer": _probe_tokenizer,
}
"""By stage, with all that it computes."""
