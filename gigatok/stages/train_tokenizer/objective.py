"""The losses that a tokenizer minimises in a step, and when each part of it sets in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from gigatok.config import TokenizerConfig
from gigatok.models.tokenizer import Tokenizer, TokenizerOutput
from gigatok.stages.train_tokenizer.adversarial import Adversary
from gigatok.stages.train_tokenizer.losses import (
    Perceptual,
    shortcut_losses,
    summed,
    tokenizer_losses,
)
from gigatok.training.trainer import Opponent

GetBatch = Callable[[int, slice], tuple[Tensor, Tensor | None]]
"""(step from 0, samples of the batch) -> images (B, 3, H, W) and teacher features (B, P, S)."""


@dataclass(frozen=True)
class Objective:
    """The losses of a tokenizer's training as functions of the step.

    Attributes:
        config: weights and starts.
        tokenizer: the model that is trained.
        forward: what to call in its place.
        get_batch: images and teacher features.
        perceptual: None where it has no weight.
        adversary: None without a discriminator.
    """

    config: TokenizerConfig
    tokenizer: Tokenizer
    forward: nn.Module
    get_batch: GetBatch
    perceptual: Perceptual | None
    adversary: Adversary | None

    def losses(self, step: int, part: slice) -> dict[str, Tensor]:
        """Compute all terms of a micro-batch in a step, counted from 0, and `loss`, their sum."""
        config, number = self.config, step + 1
        image_BCHW, teacher_BPS = self.get_batch(step, part)
        in_shortcut = number < config.shortcut_end
        output = self.forward(image_BCHW, shortcut=in_shortcut and config.shortcut_images)
        parts = [tokenizer_losses(config, output, image_BCHW, teacher_BPS, self.perceptual)]
        if in_shortcut:
            parts.append(shortcut_losses(config, output, image_BCHW, self.perceptual))
        if self.adversary is not None and number >= config.discriminator_start:
            parts.append(self._adversarial(self.adversary, part, image_BCHW, output, parts[0]))
        return summed(*parts)

    def opponent(self) -> Opponent | None:
        """Give the discriminator's side of the game."""
        if (adversary := self.adversary) is None:
            return None
        return Opponent(
            "discriminator",
            adversary,
            lambda step, part: adversary.discriminator_losses(step + 1, part),
            self.config.discriminator_start,
        )

    def _adversarial(
        self,
        adversary: Adversary,
        part: slice,
        image_BCHW: Tensor,
        output: TokenizerOutput,
        terms: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        other = self.config.reconstruction_weight * terms["reconstruction_loss"]
        if "perceptual_loss" in terms:
            other = other + self.config.perceptual_weight * terms["perceptual_loss"]
        last_layer = self.tokenizer.decoder.conv_out.weight
        fake_BCHW = output.reconstruction_BCHW
        return adversary.generator_losses(part, image_BCHW, fake_BCHW, other, last_layer)
