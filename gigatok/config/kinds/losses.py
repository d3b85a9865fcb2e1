"""Extra losses of a tokenizer's training by name: their settings, and how a batch may be cut.

`register` is the door for losses from outside; the two at the end of this file come through it
too. Standard library and pydantic only: planning reads this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from gigatok.config.fields.marks import SAME_COST
from gigatok.config.fields.open_union import NamedConfig, NamedKind, add_kind
from gigatok.plugins import Registry, registry


class LossConfig(NamedConfig):
    """Settings of one kind of loss, which is added to the loss of the tokenizer.

    A subclass narrows `name` to its own and gives it no default. The curve of a loss is
    `train/NAME_loss`, without its weight.
    """

    weight: Annotated[PositiveFloat, SAME_COST] = 1.0
    """Weight in the tokenizer's loss."""


@dataclass(frozen=True)
class LossKind(NamedKind[LossConfig]):
    """Loss that a trial can name.

    Attributes:
        config: its settings, whose `name` is one of `tokenizer.extra_losses`.
        module: `package.module:Name` of a class or function that is called with the settings and
            returns the `Loss` (`gigatok.models.losses.base`); imported when it is computed.
        over_batch: the loss of a batch is not the mean over its images, so that micro-batches
            would change results and are refused.
        compares: it is smallest where the reconstruction equals the image.
        example: settings beside `name` with which the contract is checked
            (`gigatok.contracts.loss`): all required ones.
    """

    over_batch: bool = False
    compares: bool = True


LOSSES: Registry[LossKind] = registry("loss")
"""Every loss that `tokenizer.extra_losses` may name."""
# Curves that training logs anyway (`gigatok.stages.train_tokenizer.spec`).
_TAKEN = {
    *("reconstruction", "perceptual", "semantic", "adversarial", "discriminator"),
    *("shortcut_feature", "shortcut_reconstruction", "shortcut_perceptual"),
}


def register(kind: LossKind) -> LossKind:
    """Add a loss, and return it.

    Raises:
        ValueError: another loss has the name, training has a curve of that name, or the name has
            a default.
    """
    if kind.name in _TAKEN:
        raise ValueError(f"training has a curve {kind.name!r} already; choose another name")
    return add_kind(LOSSES, kind)


class AbsoluteErrorConfig(LossConfig):
    """Mean absolute error of pixels, the reconstruction loss of VQGAN (arXiv 2012.09841)."""

    name: Literal["l1"]
    """Kind of loss."""
    # Lai et al. (arXiv 1710.01992) train with 1e-3.
    epsilon: NonNegativeFloat = 0.0
    """Width of the rounded tip, which makes it the Charbonnier loss; 0: |x| itself."""


class FocalFrequencyConfig(LossConfig):
    """Focal frequency loss: distance of spectra, hard frequencies first (arXiv 2012.12821)."""

    name: Literal["focal_frequency"]
    """Kind of loss."""
    alpha: Annotated[NonNegativeFloat, SAME_COST] = 1.0
    """Power of the distance that weighs a frequency; 0: all alike."""


register(LossKind(AbsoluteErrorConfig, "gigatok.models.losses.pixels:AbsoluteError"))
register(LossKind(FocalFrequencyConfig, "gigatok.models.losses.frequency:FocalFrequency"))
