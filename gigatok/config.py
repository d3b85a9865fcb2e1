"""Frozen typed configs: what a trial is, and what each of its stages reads. Imports no torch.

`TrialConfig` is what axes, `set` and `--set` address. Stage configs hold exactly what one stage
reads, because a stage's key is the hash of its config: a field that a stage does not read must
not be in it. Fields marked `RUNTIME` change how a stage runs but not what it computes; they are
left out of the key.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

RUNTIME: dict[str, Any] = {"identity": False}
"""`json_schema_extra` of a field that is not part of a stage's identity."""

TEACHER_CACHE_IMAGES = 100_000
"""Training images up to which teacher features are cached; DINOv2's of ImageNet are a terabyte."""

PATCHGAN_SIDE = 24
"""Side in pixels of the smallest image of which PatchGAN judges a patch."""

Fraction = Annotated[float, Field(ge=0, le=1)]


class Config(BaseModel):
    """Base of all configs: immutable, refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TransformerSize(Config):
    """Width, depth and heads behind a letter such as S or B (paper Table 1)."""

    name: str = Field("", json_schema_extra=RUNTIME)
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerSize:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class DataConfig(Config):
    """Which images: the first `train_images` of the training split, `val_images` of the other."""

    name: Literal["digits", "cifar10", "imagenet"]
    image_size: PositiveInt
    train_images: PositiveInt
    val_images: PositiveInt

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""
        return {"digits": 10, "cifar10": 10, "imagenet": 1000}[self.name]


class SplitConfig(Config):
    """The first `images` images of one split."""

    name: Literal["digits", "cifar10", "imagenet"]
    split: Literal["train", "val"]
    image_size: PositiveInt
    images: PositiveInt


class TrainingConfig(Config):
    """Optimisation settings shared by tokenizers and generators. A *step* is an optimizer step."""

    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    min_lr: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    wsd_decay_fraction: Fraction = 0.2
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms_and_biases: bool = True
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    grad_clip: NonNegativeFloat = 0.0
    """Global gradient norm; 0 is off."""
    ema_decay: Fraction = 0.0
    """0 is off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    reference_schedule_quirk: bool = False
    """Apply the schedule after the step, as the reference does: the first step runs at full lr."""
    micro_batch: PositiveInt | None = Field(None, json_schema_extra=RUNTIME)
    """Images per forward pass of a process; gradients accumulate to `batch_size`. None: all.

    Not with the entropy loss of a tokenizer, which is over the batch that it sees.
    """
    activation_checkpointing: bool = Field(False, json_schema_extra=RUNTIME)
    parallel: Literal["ddp", "fsdp"] = Field("ddp", json_schema_extra=RUNTIME)
    """How several processes share a model: replicas, or shards where it is too large for one."""
    compile: bool = Field(False, json_schema_extra=RUNTIME)
    """Speed up with torch.compile, which takes minutes before the first step."""
    log_every: PositiveInt = Field(10, json_schema_extra=RUNTIME)
    checkpoint_every: PositiveInt = Field(1000, json_schema_extra=RUNTIME)


class CNNConfig(Config):
    """The convolutional ends of a tokenizer; defaults are the published 256-pixel model."""

    channels: PositiveInt = 128
    multipliers: tuple[PositiveInt, ...] = (1, 1, 2, 2, 4)
    resblocks: PositiveInt = 2
    """Residual blocks per encoder level; the decoder has one more."""
    mid_blocks: NonNegativeInt = 2
    z_channels: PositiveInt = 256
    groups: PositiveInt = 32
    patch_size: PositiveInt = 1
    """Pixel-unshuffle factor in front of the encoder; 1 in the published models."""
    adaptive_norm: bool = True
    """Decoder levels begin with a group norm driven by the decoder's input, as published."""

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> CNNConfig:
        for channels in (self.channels * multiplier for multiplier in self.multipliers):
            if channels % min(self.groups, channels):
                raise ValueError(f"{channels} channels do not split into {self.groups} groups")
        return self

    @property
    def downsampling(self) -> int:
        """Image pixels per grid cell along one side."""
        return int(self.patch_size * 2 ** (len(self.multipliers) - 1))


def finest_level(num_latent_tokens: int) -> tuple[int, int]:
    """Rows and columns of the last level of encoder queries; half of all tokens (or the one)."""
    levels = num_latent_tokens.bit_length() - 1
    return 1 << max(levels - 1, 0) // 2, 1 << levels // 2


class TokenizerArchitecture(Config):
    """What a tokenizer is made of. Defaults are the published recipe (paper Table 9)."""

    variant: Literal["1d", "2d"] = "1d"
    """`2d`: the baseline, one token per grid cell, whatever `num_latent_tokens` says."""
    transformer_layer: Literal["vit", "qformer", "double_attention"] = "vit"
    """Layers of a 2d tokenizer; a 1d one is made of `qformer` layers always.

    `vit` is the reference's TransformerLayer (published 2D S-B and B-L), `qformer` its
    TransformerDecoderLayer (2D S-S, whose file leaves the key out), `double_attention` its
    QformerLayerVar (in no published file).
    """
    encoder: TransformerSize
    decoder: TransformerSize
    cnn: CNNConfig = CNNConfig()
    num_latent_tokens: PositiveInt = 256
    codebook_size: PositiveInt = 16384
    codebook_dim: PositiveInt = 8
    rotation_trick: bool = True
    commitment_weight: NonNegativeFloat = 0.25
    entropy_weight: NonNegativeFloat = 0.0
    entropy_temperature: PositiveFloat = 0.01
    usage_window: PositiveInt = 65536
    """Length of the buffer of recent codes from which training usage is computed."""
    semantic_weight: NonNegativeFloat = 0.5
    """Weight of the negative cosine to the teacher; at 0 neither teacher nor head exists."""
    semantic_layer: PositiveInt = 3
    """Decoder layer, counted from 1, whose output is regularised."""
    teacher: Literal["mobilenetv2", "resnet50", "dinov2", "pixels", "none"] = "dinov2"
    """`pixels`: the image's own mean-pooled patches; no semantics and no download, for tests."""
    teacher_components: NonNegativeInt = 0
    """Principal components kept of the standardised teacher features; 0 (published): raw."""
    init: Literal["reference", "fan_in"] = "reference"
    """`fan_in`: unit-scale positions and 1/sqrt(fan-in) weights, for runs of minutes."""
    codebook_init: Literal["uniform", "data"] = "uniform"
    """`data`: rows drawn from whitened encoder outputs before the first step."""
    dead_code_restart_every: NonNegativeInt = 0
    """Steps between restarts of unused codes; 0 (published) never restarts."""

    @property
    def name(self) -> str:
        """The paper's name, encoder-decoder, such as `S-B`; widths where a size has no letter."""
        ends = (self.encoder, self.decoder)
        return "-".join(end.name or f"{end.width}x{end.layers}" for end in ends)

    def tokens_per_image(self, image_size: int) -> int:
        """Codes of one image of that side: latent tokens, or grid cells of a 2d tokenizer."""
        if self.variant == "1d":
            return self.num_latent_tokens
        return (image_size // self.cnn.downsampling) ** 2

    @model_validator(mode="after")
    def _consistent(self) -> TokenizerArchitecture:
        if self.variant == "1d" and self.num_latent_tokens & (self.num_latent_tokens - 1):
            raise ValueError(
                f"num_latent_tokens {self.num_latent_tokens} is not a power of two "
                "(multi-level query initialisation doubles from 1)"
            )
        if self.semantic_weight > 0 and self.teacher == "none":
            raise ValueError("semantic_weight > 0 needs a teacher; teacher is 'none'")
        if self.semantic_weight > 0 and self.semantic_layer > self.decoder.layers:
            raise ValueError(
                f"semantic_layer {self.semantic_layer} is beyond the decoder's "
                f"{self.decoder.layers} layers"
            )
        return self


class AdversarialConfig(Config):
    """The discriminator of a tokenizer, its losses and its turn (spec 5.2)."""

    discriminator: Literal["none", "patchgan", "dino"] = "none"
    """`patchgan` in all published recipes but one; `dino`: on frozen DINO ViT-S/16 features."""
    discriminator_start: PositiveInt = 1
    """Step, counted from 1, in which the adversarial loss and the discriminator's turns begin."""
    adversarial_weight: NonNegativeFloat = 0.5
    """Of the generator's and of the discriminator's loss alike, as in the reference."""
    adversarial_loss: Literal["hinge", "vanilla", "non_saturating"] = "hinge"
    adaptive_adversarial_weight: bool = False
    """Multiply by the ratio of gradient norms at the last layer (VQGAN). The reference offers it,
    but its trainer never passes it on: the published models have it off."""
    lecam_weight: NonNegativeFloat = 0.0
    """LeCam regularisation of the discriminator; 0 (published) is off, the reference's is 0.001.
    """


class ShortcutConfig(Config):
    """Auxiliary losses of early training that lead around the bottleneck (spec 5.1)."""

    shortcut_end: NonNegativeInt = 0
    """Step, counted from 1, from which they are off ("aux_loss_end"); 0: never on."""
    shortcut_feature_loss: Literal["mse", "cosine"] = "mse"
    """Draws the decoder's grid to the encoder's, whose gradient is stopped."""
    shortcut_feature_weight: NonNegativeFloat = 1.0
    shortcut_images: bool = False
    """Also decode the encoder's grid directly and compare that image ("use_direct_rec_loss").

    The discriminator never sees it: in all published recipes it starts later than this ends.
    """


class TokenizerConfig(TokenizerArchitecture, TrainingConfig, AdversarialConfig, ShortcutConfig):
    """A tokenizer and how it is trained."""

    reconstruction_weight: NonNegativeFloat = 1.0
    perceptual_weight: NonNegativeFloat = 1.0
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    perceptual_jitter: NonNegativeInt = 0
    """Largest random padding before LPIPS; breaks the texture that strided nets imprint."""
    reference_perceptual_quirk: bool = False
    """Leave the dropout of 0.5 in front of LPIPS' heads on while training (spec 5.1)."""
    augment: Literal["none", "flip", "crop_flip"] = "flip"
    """`crop_flip`: ADM random crops of the original, and mirroring, as published (spec 5.3)."""

    @property
    def needs_whole_batch(self) -> str | None:
        """What forbids cutting the batch into micro-batches; None: nothing."""
        if self.entropy_weight > 0:
            return (
                "entropy_weight > 0 does not go with micro_batch: the loss is over the batch seen"
            )
        if self.discriminator != "none":
            return (
                f"discriminator {self.discriminator} does not go with micro_batch: "
                "its batch norms are over the batch seen"
            )
        return None

    @model_validator(mode="after")
    def _whole_batches(self) -> TokenizerConfig:
        if self.micro_batch is not None and (reason := self.needs_whole_batch):
            raise ValueError(reason)
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
    """1: centre. 5: four corners and centre of the 1.1 times enlarged image (ADM ten-crop)."""
    flip: bool = True


class GeneratorArchitecture(Config):
    """The autoregressive probe (LlamaGen), published with learned absolute positions."""

    size: TransformerSize
    dropout: Fraction = 0.1
    """Of residual branches, feed-forward outputs and input tokens alike."""
    class_dropout: Fraction = 0.1
    ffn_multiple_of: PositiveInt = 256
    position: Literal["learned", "rope_2d"] = "learned"
    """`rope_2d`: rotations by row and column, for codes of a 2d tokenizer (LlamaGen)."""
    reference_rope_quirk: bool = False
    """With `rope_2d`, multiply the class's query and key by 0, as LlamaGen's table does: no code
    can then choose how much it attends to the class. Off: the class is not rotated."""


class GeneratorConfig(GeneratorArchitecture, TrainingConfig):
    """A generator and how it is trained."""


class SamplingConfig(Config):
    """How images are drawn from a generator."""

    cfg_scale: Annotated[float, Field(ge=1)] = 1.5
    cfg_schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    cfg_start: Fraction = 0.18
    """Fraction of the tokens before guidance sets in; only the step schedule reads it."""
    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    """0 is off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    num_images: Annotated[int, Field(ge=4)]
    """At least 4, for the third neighbour of precision and recall."""
    batch_size: PositiveInt = 64


class EvaluationConfig(Config):
    """How image sets are compared."""

    num_images: Annotated[int, Field(ge=4)]
    """Validation images: reconstructed for rFID, and the reference of rFID and gFID."""
    network: Literal["inception", "pixels"] = "inception"
    """`pixels`: raw pixels at `resolution` as features; no download, for tests."""
    resolution: PositiveInt = 299
    """Side to which images are resized for the network; 299 is the standard."""
    lpips_network: Literal["vgg", "alex", "none"] = "vgg"
    """`none`: LPIPS is not measured."""
    reference: Literal["val", "adm_imagenet256"] = "val"
    """What generated images are compared with: the validation images, or the ADM evaluator's file
    of statistics, which `$GIGATOK_ADM_IMAGENET256` names (published gFIDs)."""


class ProbeConfig(Config):
    """Linear probe on the generator's middle layer (spec: LARS, BN without affine)."""

    epochs: PositiveInt = 90
    lr: PositiveFloat = 0.1
    """Per 256 images of batch."""
    batch_size: PositiveInt = 256
    warmup_epochs: NonNegativeInt = 10
    layer: NonNegativeInt = 0
    """Counted from 1; 0 is the middle."""


ProbedFeatures = Literal["none", "encoder", "latents", "decoder"]


class TokenizerProbeConfig(Config):
    """Linear probe on the tokenizer itself, trained as `probe` says (spec 7); off by default."""

    features: ProbedFeatures = "none"
    """`encoder`: its states after the last norm, the reference's default; `latents`: the same,
    projected to `z_channels` (`--fix-dim`); `decoder`: the stream after `semantic_layer`.
    """


class AdoptConfig(Config):
    """Files of weights that take the place of training: published ones, or other people's."""

    tokenizer: str | None = None
    """`adopt_tokenizer` reads it instead of running `train_tokenizer`."""
    generator: str | None = None
    """`adopt_generator` reads it instead of running `train_generator`. Only beside `tokenizer`: a
    generator speaks the codes of the tokenizer that it was trained with."""

    @model_validator(mode="after")
    def _can_be_adopted(self) -> AdoptConfig:
        if self.generator is not None and self.tokenizer is None:
            raise ValueError(
                f"generator {self.generator} speaks the codes of the tokenizer that it was "
                "trained with: give adopt.tokenizer as well"
            )
        for name, file in (("tokenizer", self.tokenizer), ("generator", self.generator)):
            if file is not None and not Path(file).expanduser().is_file():
                raise ValueError(f"{name} {file} is no file (relative paths: from {Path.cwd()})")
        return self


class TrialConfig(Config):
    """One trial: everything that axes, `set` and `--set` can address."""

    data: DataConfig
    tokenizer: TokenizerConfig
    codes: CodesConfig = CodesConfig()
    generator: GeneratorConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    probe: ProbeConfig = ProbeConfig()
    tokenizer_probe: TokenizerProbeConfig = TokenizerProbeConfig()
    adopt: AdoptConfig = AdoptConfig()
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _consistent(self) -> TrialConfig:
        down = self.tokenizer.cnn.downsampling
        if self.data.image_size % down:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of {down}, "
                "the downsampling of tokenizer.cnn"
            )
        _check_grid(self.tokenizer, self.data.image_size)
        if self.tokenizer.discriminator == "patchgan" and self.data.image_size < PATCHGAN_SIDE:
            raise ValueError(
                f"tokenizer.discriminator patchgan needs images of {PATCHGAN_SIDE} pixels or "
                f"more; data.image_size is {self.data.image_size}"
            )
        tokens = self.tokenizer.tokens_per_image(self.data.image_size)
        if self.generator.position == "rope_2d" and isqrt(tokens) ** 2 != tokens:
            raise ValueError(
                f"generator.position rope_2d needs a square of tokens; the tokenizer has {tokens}"
            )
        probed, layers = self.tokenizer_probe.features, self.tokenizer.decoder.layers
        if probed == "decoder" and self.tokenizer.semantic_layer > layers:
            raise ValueError(
                f"tokenizer_probe.features decoder needs tokenizer.semantic_layer "
                f"{self.tokenizer.semantic_layer} of the decoder, which has {layers} layers"
            )
        if self.probe.layer > self.generator.size.layers:
            raise ValueError(
                f"probe.layer {self.probe.layer} is beyond the "
                f"{self.generator.size.layers} layers of generator.size"
            )
        return self

    @model_validator(mode="after")
    def _components_need_a_cache(self) -> TrialConfig:
        tokenizer = self.tokenizer
        regularised = tokenizer.semantic_weight > 0 and self.adopt.tokenizer is None
        if regularised and tokenizer.teacher_components and not self.uses_cached_teacher:
            raise ValueError(
                "tokenizer.teacher_components needs the features of all training images "
                "beforehand, which are kept with tokenizer.augment none or flip and at most "
                f"{TEACHER_CACHE_IMAGES:,} images; otherwise give 0"
            )
        return self

    @property
    def uses_cached_teacher(self) -> bool:
        """Whether teacher features are computed once for all training images, not in each step.

        So they are where an image has few views (no random crops) and images are few.
        """
        if self.adopt.tokenizer is not None:
            return False
        countable = self.tokenizer.augment != "crop_flip"
        small = self.data.train_images <= TEACHER_CACHE_IMAGES
        return self.tokenizer.semantic_weight > 0 and countable and small

    def split(self, split: Literal["train", "val"], images: int | None = None) -> SplitConfig:
        """The part of one split that a stage reads; `images` overrides the trial's count."""
        default = self.data.train_images if split == "train" else self.data.val_images
        return _split(self.data.name, split, self.data.image_size, images or default)


def _check_grid(tokenizer: TokenizerArchitecture, image_size: int) -> None:
    """Raise unless the grid is large enough for the adaptive norms and the queries of 1d."""
    down = tokenizer.cnn.downsampling
    grid = image_size // down
    if tokenizer.variant == "2d":
        if grid < 2:
            raise ValueError(
                f"data.image_size {image_size} over {down}, the downsampling of tokenizer.cnn, "
                "gives a grid of a single cell; it needs two by two"
            )
        return
    rows, columns = finest_level(tokenizer.num_latent_tokens)
    if grid < 2 or grid % rows or grid % columns:
        raise ValueError(
            f"tokenizer.num_latent_tokens {tokenizer.num_latent_tokens} needs a grid "
            f"that divides into {rows} x {columns}; data.image_size "
            f"{image_size} over {down} gives {grid} x {grid}"
        )


@lru_cache(maxsize=1024)
def _split(name: str, split: str, image_size: int, images: int) -> SplitConfig:
    # One object per value, so that planning recognises what trials share without comparing.
    values = {"name": name, "split": split, "image_size": image_size, "images": images}
    return SplitConfig.model_validate(values)
