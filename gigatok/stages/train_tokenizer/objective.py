"""Objective of a tokenizer in each step, with the start of each of its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from gigatok.config import TokenizerConfig
from gigatok.models.tokenizer.base import Tokenizer, TokenizerOutput
from gigatok.stages.train_tokenizer.adversarial import Adversary
from gigatok.stages.train_tokenizer.losses import (
    Perceptual,
    shortcut_losses,
    summed,
    tokenizer_losses,
)
from gigatok.training.trainer import Opponent

GetBatch = Callable[[int, slice], tuple[Tensor, Tensor | None]]
"""Function of a step from 0 and the samples of the batch.

Returns images (B, 3, H, W) and teacher features (B, P, S).
"""


@dataclass(frozen=True)
class Objective:
    """Losses of a tokenizer's training as functions of the step.

    Attributes:
        config: weights and starts.
        tokenizer: the model that is trained.
        forward: module to call instead of it (`parallelise`).
        get_batch: returns images and teacher features.
        perceptual: LPIPS; None if it has no weight.
        adversary: the discriminator's side; None without a discriminator.
    """

    config: TokenizerConfig
    tokenizer: Tokenizer
    forward: nn.Module
    get_batch: GetBatch
    perceptual: Perceptual | None
    adversary: Adversary | None

    def losses(self, step: int, part: slice) -> dict[str, Tensor]:
        """Compute all terms of one micro-batch in step `step`, counted from 0, and `loss`."""
        # The config counts steps from 1, as the reference's `global_step` does.
        config, number = self.config, step + 1
        image_BCHW, teacher_BPS = self.get_batch(step, part)
        in_shortcut = number < config.shortcut_end
        # Decoding around the bottleneck is another pass of the CNN decoder.
        output = self.forward(image_BCHW, shortcut=in_shortcut and config.shortcut_images)
        parts = [tokenizer_losses(config, output, image_BCHW, teacher_BPS, self.perceptual)]
        if in_shortcut:
            parts.append(shortcut_losses(config, output, image_BCHW, self.perceptual))
        if self.adversary is not None and number >= config.discriminator_start:
            parts.append(self._adversarial(self.adversary, part, image_BCHW, output, parts[0]))
        return summed(*parts)

    def opponent(self) -> Opponent | None:
        """Return the discriminator's side of the training; None without a discriminator."""
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
        # Without semantic and quantizer losses, as in VQGAN: they do not reach the last layer.
        other = self.config.reconstruction_weight * terms["reconstruction_loss"]
        if "perceptual_loss" in terms:
            other = other + self.config.perceptual_weight * terms["perceptual_loss"]
        # The adaptive weight compares gradients at this layer (VQGAN, arXiv 2012.09841, eq. 7).
        last_layer = self.tokenizer.last_layer
        fake_BCHW = output.reconstruction_BCHW
        return adversary.generator_losses(part, image_BCHW, fake_BCHW, other, last_layer)
