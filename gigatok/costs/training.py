"""FLOPs of training steps: forward and backward passes of all networks that take part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gigatok.config import GeneratorArchitecture, TokenizerConfig
from gigatok.models.frozen.layout import lpips_head_flops, lpips_layer
from gigatok.models.generator.layout import generator_layout
from gigatok.models.judges.layout import judge_layout
from gigatok.models.layers import flops
from gigatok.models.losses.layout import extra_losses_costs
from gigatok.models.tokenizer.layout import tokenizer_layout


@dataclass(frozen=True)
class TokenizerStep:
    """FLOPs that one image takes in a tokenizer's training step.

    Attributes:
        tokenizer: in every step.
        perceptual: LPIPS in every step.
        teacher: features that are not cached.
        shortcut: decoding around the bottleneck, in early steps.
        game: both turns of the adversarial game, in late steps.
        extra: extra losses in every step.
    """

    tokenizer: int
    perceptual: int
    teacher: int
    shortcut: int
    game: int
    extra: int


def tokenizer_step_flops(
    config: TokenizerConfig, image_size: int, *, cached_teacher: bool = False
) -> TokenizerStep:
    """Count what one image takes in a step of `train_tokenizer`, by when it sets in."""
    layout = tokenizer_layout(config, image_size)
    stem, last = layout.cnn_encoder[0], layout.cnn_decoder[-1]
    # The lookup has no backward pass, and the image needs no gradient.
    trained = 3 * flops(layout.total) - 2 * flops(layout.codebook) - stem.flops
    if config.activation_checkpointing:
        trained += sum(layer.again for layer in layout.total)
    perceptual = _perceptual(config, image_size)
    online = config.semantic_weight > 0 and not cached_teacher
    shortcut = 3 * flops(layout.cnn_decoder) + perceptual if config.shortcut_images else 0
    return TokenizerStep(
        tokenizer=trained,
        perceptual=perceptual,
        teacher=config.teacher_cost.flops if online else 0,
        shortcut=shortcut,
        game=_game(config, image_size, last.flops),
        extra=sum(o.flops + o.backward for o in extra_losses_costs(config, image_size)),
    )


def _perceptual(config: TokenizerConfig, image_size: int) -> int:
    """Count LPIPS: forward on both images, backward to the reconstruction."""
    if config.perceptual_weight == 0:
        return 0
    network = config.perceptual_network
    mean = _jittered(network, image_size, config.perceptual_jitter)
    return 3 * mean + 2 * lpips_head_flops(network)


@lru_cache(maxsize=256)
def _jittered(network: str, image_size: int, largest: int) -> int:
    """Average LPIPS' network on an image over its paddings, which are many."""
    sides = range(image_size, image_size + largest + 1)
    total = sum(lpips_layer(network, height, width).flops for height in sides for width in sides)
    return total // len(sides) ** 2


def _game(config: TokenizerConfig, image_size: int, last_layer: int) -> int:
    """Count both turns: the tokenizer's, judged with gradients to the image, and the judge's."""
    judge = judge_layout(config.discriminator, image_size)
    adaptive = 0
    if config.adaptive_adversarial_weight and config.discriminator != "none":
        # Gradients of both losses at the last layer, beside those of the step.
        adaptive = judge.backward + 2 * last_layer + _perceptual(config, image_size) // 3
    return judge.forward + judge.backward + judge.turn + adaptive


def generator_training_flops(
    config: GeneratorArchitecture, codebook_size: int, num_tokens: int, *, recompute: bool = False
) -> int:
    """Count one image's forward and backward pass; `recompute`: with activation checkpointing."""
    # The number of classes changes the embedding only, which takes no products.
    layout = generator_layout(config, codebook_size, 0, num_tokens)
    again = sum(layer.again for layer in layout) if recompute else 0
    return 3 * flops(layout) + again
