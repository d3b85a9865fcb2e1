"""Tokenizer: its architecture, its losses, its training, and the views that it encodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from gigatok.config.base import UNREAD_SIZE, Config
from gigatok.config.evaluation import ProbedFeatures
from gigatok.config.kinds.losses import LOSSES, LossConfig
from gigatok.config.kinds.losses import configs as loss_configs
from gigatok.config.kinds.quantizers import CodebookConfig
from gigatok.config.kinds.teachers import (
    TeacherCost,
    TeacherName,
    look_at,
    teacher_cost,
    unread_name,
)
from gigatok.config.kinds.tokenizers import (
    OF_SOME,
    PUBLISHED,
    TokenizerKindConfig,
    TokenizerSettings,
    configs,
    reads_of,
)
from gigatok.config.marks import COMPUTES, TRAINING_ONLY
from gigatok.config.open_union import OneOf
from gigatok.config.training import TrainingConfig

# Its five convolutions (kernel 4, padding 1; strides 2, 2, 2, 1, 1) map 24 pixels to 12, 6, 3, 2
# and 1.
PATCHGAN_SIDE = 24
"""Side in pixels of the smallest image of which PatchGAN judges a patch."""
LPIPS_SIDES = {"vgg": 16, "alex": 31}
"""Sides in pixels of the smallest images that the networks of LPIPS can pool."""


class TokenizerArchitecture(TokenizerSettings):
    """Architecture of a tokenizer; the defaults are the published recipe (paper Table 9).

    `architecture` names the kind; each says which of the other fields it reads.
    """

    decisive: ClassVar[tuple[str, ...]] = ("architecture", "quantizer")
    architecture: Annotated[TokenizerKindConfig, OneOf(configs), COMPUTES] = PUBLISHED
    """Architecture by name, with its settings; those of the published one are keys beside it."""

    @property
    def name(self) -> str:
        """Name as in the paper, encoder-decoder, such as `S-B`; that of other architectures."""
        return self.architecture.label_of(self)

    @property
    def vocabulary(self) -> int:
        """Values that a code can have."""
        return self.code_shape.vocabulary

    @property
    def restart_codes_every(self) -> int:
        """Steps between restarts of unused codes; 0: the quantizer has none, or they are off."""
        return self.dead_code_restart_every if self.has_codebook else 0

    @property
    def has_codebook(self) -> bool:
        """Tell whether the quantizer learns its codes, so that they are drawn and restarted."""
        return "dead_code_restart_every" in self.quantizer.reads

    @property
    def unread(self) -> frozenset[str]:
        """Settings that this architecture or this quantizer does not read."""
        codebook = frozenset(CodebookConfig.model_fields) - self.quantizer.reads
        return codebook | (OF_SOME - self.architecture.reads)

    @property
    def told_elsewhere(self) -> frozenset[str]:
        """Path of a teacher, whose content was found."""
        return unread_name(self.teacher)

    @property
    def teacher_cost(self) -> TeacherCost:
        """Features and costs of the teacher."""
        return teacher_cost(self.teacher, self.found_teacher)

    def sequence_length(self, image_size: int) -> int:
        """Count the codes of an image: those of all its tokens."""
        return self.tokens_per_image(image_size) * self.code_shape.depth

    def bits_per_image(self, image_size: int) -> float:
        """Count the bits that name an image's codes."""
        return self.sequence_length(image_size) * math.log2(self.vocabulary)

    def tokens_per_image(self, image_size: int) -> int:
        """Count the tokens of an image, such as latent tokens or grid cells."""
        return self.architecture.tokens_per_image(self, image_size)

    def probed_width(self, features: ProbedFeatures) -> int:
        """Count the channels of the features that a linear probe reads.

        Raises:
            ValueError: the architecture has no such features.
        """
        return self.architecture.probed_width(self, features)

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put `UNREAD_SIZE` for sizes that the architecture does not read, and no teacher."""
        reads = reads_of(values.get("architecture", PUBLISHED))
        unread = {"encoder": UNREAD_SIZE, "decoder": UNREAD_SIZE, "semantic_weight": 0.0}
        return {**{key: value for key, value in unread.items() if key not in reads}, **values}

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        return cls.completed(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> TokenizerArchitecture:
        if self.semantic_weight > 0 and "semantic_weight" not in self.architecture.reads:
            raise ValueError(
                f"semantic_weight {self.semantic_weight:g} needs features that a teacher can "
                f"regularise, which architecture {self.architecture.name} does not have; give 0"
            )
        self.architecture.check(self)
        if self.semantic_weight > 0 and self.teacher == "none":
            raise ValueError("semantic_weight > 0 needs a teacher; teacher is 'none'")
        return self


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
    extra_losses: tuple[Annotated[LossConfig, OneOf(loss_configs)], ...] = ()
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
