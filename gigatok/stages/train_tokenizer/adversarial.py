"""Adversarial training of a tokenizer and its discriminator (reference: `VQLoss`).

Logits have any shape; a large logit means that a patch looks real. B batch, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import AdversarialConfig
from gigatok.runtime.distributed import mean

# Decay and start of the means are those of the reference's LeCam.
LECAM_DECAY = 0.99
LECAM_DELAY = 1000
"""Steps from the discriminator's first turn until the means move slowly.

Before, they are the means of the step. The penalty does not wait for it.
"""
# Never used as a mean: the first step replaces it.
LECAM_INIT = 1000.0
# As in the released code of VQGAN (Esser et al. 2021).
MOST_ADAPTIVE = 1e4
"""Largest adaptive weight."""


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute half the mean shortfall from a margin of 1 on either side (hinge loss)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def logistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute half the binary cross-entropies of real as 1 and fake as 0.

    The reference calls it vanilla. Its non-saturating twin passes logits as targets and targets as
    logits; in the right order the two are the same.
    """
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


DISCRIMINATOR_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_discriminator_loss,
    "vanilla": logistic_discriminator_loss,
    "non_saturating": logistic_discriminator_loss,
}
"""Function of real and fake logits that returns the loss, by `tokenizer.adversarial_loss`."""

GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda fake: -fake.mean(),
    "vanilla": lambda fake: -fake.mean(),
    "non_saturating": lambda fake: F.softplus(-fake).mean(),
}
"""Function of fake logits that returns the loss, by the same name."""


class LeCam(nn.Module):
    """LeCam regularisation: keeps logits near the other side's mean (Tseng et al. 2021)."""

    real_mean: Tensor
    fake_mean: Tensor

    def __init__(self, first_turn: int) -> None:
        super().__init__()
        self.first_turn = first_turn
        self.register_buffer("real_mean", torch.tensor(LECAM_INIT))
        self.register_buffer("fake_mean", torch.tensor(LECAM_INIT))

    def forward(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """Update the means and return the penalty, 0 in the first turn; steps count from 1."""
        with torch.no_grad():
            settled = step >= self.first_turn + LECAM_DELAY
            weight = 1 - LECAM_DECAY if settled else 1.0
            # Means over all processes: each must regularise towards the same values.
            self.real_mean.lerp_(mean(real.mean()), weight)
            self.fake_mean.lerp_(mean(fake.mean()), weight)
        if step <= self.first_turn:
            return real.new_zeros(())
        above = F.relu(real - self.fake_mean).square().mean()
        below = F.relu(self.real_mean - fake).square().mean()
        return above + below


class Adversary(nn.Module):
    """Discriminator with the losses of both sides, and the images that it was shown.

    Args:
        config: losses, weights and the step at which the adversarial training begins.
        discriminator: maps images in [-1, 1] to logits.
    """

    def __init__(self, config: AdversarialConfig, discriminator: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.discriminator = discriminator
        self.lecam = LeCam(config.discriminator_start) if config.lecam_weight > 0 else None
        self._shown: dict[int, tuple[Tensor, Tensor]] = {}

    def generator_losses(
        self,
        part: slice,
        real_BCHW: Tensor,
        fake_BCHW: Tensor,
        other_loss: Tensor,
        last_layer: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the tokenizer's adversarial loss, weighted as `loss` and unweighted.

        Args:
            part: the samples of the batch; they are kept for the discriminator's turn.
            real_BCHW: images.
            fake_BCHW: their reconstructions.
            other_loss: reconstruction and perceptual loss, for the adaptive weight.
            last_layer: weight that made `fake_BCHW`, for the adaptive weight.
        """
        # Kept by micro-batch: the discriminator's turn comes after all of the tokenizer's.
        self._shown[part.start] = (real_BCHW, fake_BCHW.detach())
        # The tokenizer's turn must leave no gradients in the discriminator.
        with frozen(self.discriminator):
            # The loss in fp32, whatever type autocast chose.
            logits = self.discriminator(fake_BCHW).float()
        loss = GENERATOR_LOSSES[self.config.adversarial_loss](logits)
        terms = {"adversarial_loss": loss}
        weight = self.config.adversarial_weight * loss
        if self.config.adaptive_adversarial_weight:
            terms["adaptive_weight"] = adaptive_weight(other_loss, loss, last_layer)
            weight = weight * terms["adaptive_weight"]
        return {"loss": weight, **terms}

    def discriminator_losses(self, step: int, part: slice) -> dict[str, Tensor]:
        """Compute the discriminator's losses on the images of this step, counted from 1."""
        real_BCHW, fake_BCHW = self._shown.pop(part.start)
        # Fakes first, as in the reference: each call moves the estimate of a spectral norm.
        fake = self.discriminator(fake_BCHW).float()
        real = self.discriminator(real_BCHW).float()
        loss = DISCRIMINATOR_LOSSES[self.config.adversarial_loss](real, fake)
        terms = {"loss": self.config.adversarial_weight * loss}
        if self.lecam is not None:
            terms["lecam"] = self.lecam(real, fake, step)
            terms["loss"] = terms["loss"] + self.config.lecam_weight * terms["lecam"]
        return {**terms, "real_logit": real.mean(), "fake_logit": fake.mean()}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch off gradients for a module's parameters, but not for its inputs."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        # The discriminator has no frozen parameters of its own: DINO's are outside of it.
        module.requires_grad_(True)


def adaptive_weight(other_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Compute how much larger the other losses' gradient is at the last layer, at most 10,000.

    The adaptive weight of VQGAN (Esser et al. 2021), with the constants of its released code.
    """
    # The graph is kept, as the step's own backward pass goes through it again.
    (other,) = torch.autograd.grad(other_loss, last_layer, retain_graph=True)
    (adversarial,) = torch.autograd.grad(adversarial_loss, last_layer, retain_graph=True)
    # Gradients of the whole batch: each process has seen only its slice.
    ratio = mean(other).norm() / (mean(adversarial).norm() + 1e-4)
    weight: Tensor = ratio.clamp(max=MOST_ADAPTIVE).detach()
    return weight
