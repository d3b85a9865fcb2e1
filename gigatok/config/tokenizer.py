"""Tokenizer: its architecture, its losses, its training, and the views that it encodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from gigatok.config.fields.base import Config
from gigatok.config.fields.marks import TRAINING_ONLY
from gigatok.config.fields.open_union import OneOf
from gigatok.config.kinds.architecture import TokenizerArchitecture
from gigatok.config.kinds.losses import LOSSES, LossConfig
from gigatok.config.kinds.teachers import (
    TeacherName,
    look_at,
)
from gigatok.config.training import TrainingConfig

# Its five convolutions (kernel 4, padding 1; strides 2, 2, 2, 1, 1) map 24 pixels to 12, 6, 3, 2
# and 1.
PATCHGAN_SIDE = 24
"""Side in pixels of the smallest image of which PatchGAN judges a patch."""
LPIPS_SIDES = {"vgg": 16, "alex": 31}
"""Sides in pixels of the smallest images that the networks of LPIPS can pool."""


class AdversarialConfig(Config):
    """Discriminator of a tokenizer, its losses and its start (reference: `VQLoss`)."""

    discriminator: Literal["none", "patchgan", "dino"] = "none"
    """Discriminator; `patchgan` in all published recipes but one; `dino`: on DINO ViT-S/16."""
    discriminator_start: PositiveInt = 1
    """Step, counted from 1, from which the adversarial loss and the discriminator are active."""
    adversarial_weight: NonNegativeFloat = 0.5
    """Weight of the generator's and of the discriminator's loss, as in the reference."""
    adversarial_loss: Literal["hinge", "vanilla", "non_saturating"] = "hinge"
    """Loss of generator and discriminator."""
    adaptive_adversarial_weight: bool = False
    """Multiply by the ratio of gradient norms at the last layer (VQGAN).

    The reference offers it, but its trainer never passes it on, so the published models lack it.
    """
    lecam_weight: NonNegativeFloat = 0.0
    """Weight of LeCam regularisation; 0 (published) is off, the reference's default is 0.001."""


class ShortcutConfig(Config):
    """Auxiliary losses of early training that bypass the bottleneck (reference: `VQLoss`)."""

    shortcut_end: NonNegativeInt = 0
    """Step, counted from 1, from which they are off (reference: `aux_loss_end`); 0: never on."""
    shortcut_feature_loss: Literal["mse", "cosine"] = "mse"
    """Loss that draws the decoder's grid to the encoder's, whose gradient is stopped."""
    shortcut_feature_weight: NonNegativeFloat = 1.0
    """Weight of the loss between the two grids."""
    shortcut_images: bool = False
    """Also decode the encoder's grid directly and compare that image (`use_direct_rec_loss`).

    The discriminator never sees it: in all published recipes it starts after these losses end.
    """


class TokenizerConfig(TokenizerArchitecture, TrainingConfig, AdversarialConfig, ShortcutConfig):
    """Tokenizer with its training."""

    teacher: Annotated[str, TeacherName(), TRAINING_ONLY] = "dinov2"
    """Semantic teacher by name, or `hf:REPO_OR_FOLDER`; `pixels`: patches of the image."""
    reconstruction_weight: NonNegativeFloat = 1.0
    """Weight of the mean squared error of pixels in [-1, 1]."""
    perceptual_weight: NonNegativeFloat = 1.0
    """Weight of LPIPS; 0 turns it off."""
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    """Network of LPIPS; the authors train with `vgg`."""
    perceptual_jitter: NonNegativeInt = 0
    """Largest random padding before LPIPS; breaks the texture that strided nets imprint."""
    reference_perceptual_quirk: bool = False
    """Keep the dropout of 0.5 before LPIPS' heads on while training, as the reference does."""
    extra_losses: tuple[Annotated[LossConfig, OneOf(LOSSES)], ...] = ()
    """Losses beside the published ones, by name, such as `[{name: l1, weight: 0.5}]`."""
    augment: Literal["none", "flip", "crop_flip"] = "flip"
    """Augmentation; `crop_flip`: ADM random crops of the original and mirroring, as published."""

    @property
    def needs_whole_batch(self) -> str | None:
        """Reason why the batch must not be cut into micro-batches; None: it may."""
        if (setting := self.quantizer.batch_loss(self)) is not None:
            return f"{setting} does not go with micro_batch: the loss is over the batch seen"
        for loss in self.extra_losses:
            if LOSSES[loss.name].over_batch:
                what = f"extra loss {loss.name}"
                return f"{what} does not go with micro_batch: it is over the batch seen"
        if self.discriminator != "none":
            return (
                f"discriminator {self.discriminator} does not go with micro_batch: "
                "its batch norms are over the batch seen"
            )
        return None

    @model_validator(mode="after")
    def _looked_at_teacher(self) -> TokenizerConfig:
        # A recorded plan has the facts: it can be read wherever the teacher is now.
        if self.semantic_weight > 0 and self.found_teacher is None:
            self.__dict__["found_teacher"] = look_at(self.teacher)
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> TokenizerConfig:
        if self.micro_batch is not None and (reason := self.needs_whole_batch):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _losses_differ(self) -> TokenizerConfig:
        # By name: each has a curve of its own.
        names = [*self.quantizer.losses(self), *(loss.name for loss in self.extra_losses)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"extra_losses makes two losses {twice[0]!r}, those of the quantizer counted; "
                "each has a curve of its own: give the name once"
            )
        return self

    @model_validator(mode="after")
    def _shortcut_has_grids(self) -> TokenizerConfig:
        if self.shortcut_end > 0 and "shortcut_end" not in self.architecture.reads:
            raise ValueError(
                f"shortcut_end {self.shortcut_end} needs grids on both sides of the bottleneck, "
                f"which architecture {self.architecture.name} does not have; give 0"
            )
        return self

    @model_validator(mode="after")
    def _last_layer_is_whole(self) -> TokenizerConfig:
        if self.adaptive_adversarial_weight and self.parallel == "fsdp":
            raise ValueError(
                "adaptive_adversarial_weight does not go with parallel fsdp: it needs the "
                "gradient at the last layer, of which each process holds a shard; take ddp"
            )
        return self


class CodesConfig(Config):
    """Views of each training image that are encoded: crops x flips."""

    crops: Literal[1, 5] = 1
    """Crops; 1: centre. 5: four corners and centre of the image enlarged 1.1 times (ADM)."""
    flip: bool = True
    """Also encode the mirror image of each crop."""
