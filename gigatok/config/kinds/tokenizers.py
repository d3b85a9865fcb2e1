"""Tokenizer architectures by name: their settings, and what planning has to know of them.

`register` is the door for architectures from outside; the published one comes through it too.
Standard library and pydantic only: planning reads this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from gigatok.config.fields.base import Config, TransformerSize
from gigatok.config.fields.marks import COMPUTES, FOUND, SAME_COST, TRAINING_ONLY
from gigatok.config.fields.open_union import NamedConfig, NetworkKind, OneOf, add_kind, kind_named
from gigatok.config.kinds.quantizers import PUBLISHED as PUBLISHED_QUANTIZER
from gigatok.config.kinds.quantizers import QUANTIZERS, CodebookConfig, CodeShape, QuantizerConfig
from gigatok.config.kinds.teachers import FoundTeacher
from gigatok.plugins import Registry, registry

SEMANTIC = frozenset({"semantic_weight", "teacher", "teacher_components"})
"""Fields that an architecture reads if its output has a stream that a teacher regularises."""
SHORTCUT = frozenset(
    {"shortcut_end", "shortcut_feature_loss", "shortcut_feature_weight", "shortcut_images"}
)
"""Fields that an architecture reads if its output has grids around the bottleneck."""
OF_SOME = SEMANTIC | SHORTCUT | {
    *("variant", "transformer_layer", "encoder", "decoder", "cnn", "num_latent_tokens"),
    *("semantic_layer", "init"),
}  # fmt: skip
"""Fields of a tokenizer that not every architecture reads; all others are read by all."""
ProbedFeatures = Literal["none", "encoder", "latents", "decoder"]
"""Features of a tokenizer that a linear probe may read; an architecture may lack some."""


class CNNConfig(Config):
    """Convolutional ends of a tokenizer; the defaults are the published 256-pixel model."""

    channels: PositiveInt = 128
    """Channels at full resolution; deeper levels have multiples of them."""
    # Five levels halve the side four times: 256 pixels become a grid of 16 x 16.
    multipliers: tuple[PositiveInt, ...] = (1, 1, 2, 2, 4)
    """Channels of each level in multiples of `channels`; all but the last halve the side."""
    resblocks: PositiveInt = 2
    """Residual blocks per encoder level; the decoder has one more."""
    mid_blocks: NonNegativeInt = 2
    """Residual blocks at the lowest resolution, without change of channels."""
    z_channels: PositiveInt = 256
    """Channels of the grid between CNN and transformer."""
    # As in VQGAN.
    groups: PositiveInt = 32
    """Largest number of groups of a group norm."""
    patch_size: PositiveInt = 1
    """Pixel-unshuffle factor before the encoder; 1 in the published models."""
    adaptive_norm: bool = True
    """Begin each decoder level with a group norm driven by the decoder's input, as published."""

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> CNNConfig:
        for channels in (self.channels * multiplier for multiplier in self.multipliers):
            # Narrow models of tests have fewer channels than groups; then each channel is a group.
            if channels % min(self.groups, channels):
                raise ValueError(f"{channels} channels do not split into {self.groups} groups")
        return self

    @property
    def downsampling(self) -> int:
        """Image pixels per grid cell along one side."""
        return int(self.patch_size * 2 ** (len(self.multipliers) - 1))


class TokenizerSettings(CodebookConfig):
    """Settings of architectures and of their training, above all of the published one.

    They stand among the tokenizer's own keys because the published architecture came first. An
    architecture says which of them it reads (`TokenizerKindConfig.reads`).
    """

    variant: Annotated[Literal["1d", "2d"], COMPUTES] = "1d"
    """Kind of tokenizer; `2d`: the baseline, one token per grid cell, without latent tokens."""
    transformer_layer: Annotated[Literal["vit", "qformer", "double_attention"], COMPUTES] = "vit"
    """Layers of a 2D tokenizer; a 1D one always has `qformer` layers.

    `vit` is the reference's TransformerLayer (published 2D S-B and B-L), `qformer` its
    TransformerDecoderLayer (2D S-S, whose file leaves the key out), `double_attention` its
    QformerLayerVar (in no published file).
    """
    encoder: Annotated[TransformerSize, COMPUTES]
    """Size of the transformer from grid to tokens."""
    decoder: Annotated[TransformerSize, COMPUTES]
    """Size of the transformer from tokens to grid."""
    cnn: Annotated[CNNConfig, COMPUTES] = CNNConfig()
    """Convolutional encoder and decoder."""
    num_latent_tokens: Annotated[PositiveInt, COMPUTES] = 256
    """Tokens per image of a 1D tokenizer; a power of two."""
    quantizer: Annotated[QuantizerConfig, OneOf(QUANTIZERS), COMPUTES] = PUBLISHED_QUANTIZER
    """Quantizer by name, with its settings, such as `{name: fsq, levels: [8, 5, 5, 5]}`."""
    # The reference's default `proj_weight`, which no config file of theirs sets.
    semantic_weight: Annotated[NonNegativeFloat, TRAINING_ONLY] = 0.5
    """Weight of the negative cosine to the teacher; at 0 neither teacher nor head exists."""
    semantic_layer: Annotated[PositiveInt, TRAINING_ONLY, SAME_COST] = 3
    """Decoder layer, counted from 1, whose output is regularised."""
    # Any text: a trained tokenizer is loaded without the teacher that it followed.
    teacher: Annotated[str, TRAINING_ONLY] = "dinov2"
    """Semantic teacher by name; `TokenizerConfig` says which there are."""
    found_teacher: Annotated[FoundTeacher | None, FOUND, TRAINING_ONLY] = None
    """Facts about a teacher of your own; filled in by looking, and recorded with the plan."""
    teacher_components: NonNegativeInt = 0
    """Principal components kept of the standardised teacher features; 0 (published): raw."""
    init: Literal["reference", "fan_in"] = "reference"
    """Initialisation; `fan_in`: unit-scale positions, 1/sqrt(fan-in) weights, for short runs."""

    @property
    def code_shape(self) -> CodeShape:
        """Codes that the quantizer makes of a token."""
        return self.quantizer.code_shape(self)


class TokenizerKindConfig(NamedConfig):
    """Settings of one kind of tokenizer; a subclass says what planning has to know of it.

    A subclass narrows `name` to its own and gives it no default. The quantizer is no part of it:
    each architecture goes with every quantizer.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    """Those of `OF_SOME` that it reads; keys leave out the others, and sizes need not be given."""

    def tokens_per_image(self, tokenizer: TokenizerSettings, image_size: int) -> int:
        """Count the tokens of an image.

        It may depend on these settings, and on `variant`, `cnn` and `num_latent_tokens`.
        """
        raise NotImplementedError

    def check(self, tokenizer: TokenizerSettings) -> None:
        """Raise `ValueError` unless the tokenizer's settings go together."""

    def check_images(self, tokenizer: TokenizerSettings, image_size: int) -> None:
        """Raise `ValueError` unless it takes images of this side; name keys in full."""

    def probed_width(self, tokenizer: TokenizerSettings, features: ProbedFeatures) -> int:
        """Count the channels of the features that a linear probe reads.

        Raises:
            ValueError: it has no such features.
        """
        raise ValueError(
            f"tokenizer_probe.features {features}: tokenizer.architecture {self.name} shows no "
            "such features; give none"
        )

    def family(self, tokenizer: TokenizerSettings) -> str:
        """Name what must agree for the times of two such tokenizers to be comparable."""
        return self.name

    def label_of(self, tokenizer: TokenizerSettings) -> str:
        """Name a tokenizer in names of trials and folders, with its sizes where it has some."""
        sizes = [getattr(tokenizer, end) for end in ("encoder", "decoder") if end in self.reads]
        return "-".join([self.label, *(size.label for size in sizes)])


@dataclass(frozen=True)
class TokenizerKind(NetworkKind[TokenizerKindConfig]):
    """Tokenizer architecture that a trial can name.

    Attributes:
        config: its settings, whose `name` is the value of `tokenizer.architecture.name`.
        module: `package.module:Class` of its `Tokenizer` (`gigatok.models.tokenizer.base`), which
            is imported when a tokenizer is built.
        layout: `package.module:function` without torch, which describes its layers
            (`gigatok.models.tokenizer.layout`); None: its costs are measured.
        example: settings beside `name` with which the contract is checked
            (`gigatok.contracts.tokenizer`): all required ones, for a small network.
    """


TOKENIZERS: Registry[TokenizerKind] = registry("tokenizer")
"""Every architecture that `tokenizer.architecture` may name."""


def register(kind: TokenizerKind) -> TokenizerKind:
    """Add a tokenizer architecture, and return it.

    Raises:
        ValueError: another one has the name, or its name has a default.
    """
    return add_kind(TOKENIZERS, kind)


def finest_level(num_latent_tokens: int) -> tuple[int, int]:
    """Return rows and columns of the last level of encoder queries: half of all tokens.

    Levels double from 1, columns first, as in the reference's `ViTEncoder`
    (`multi_level_query_init`). A single token is a level of its own.
    """
    # Token counts are powers of two, so `bit_length` gives the exact logarithm.
    levels = num_latent_tokens.bit_length() - 1
    return 1 << max(levels - 1, 0) // 2, 1 << levels // 2


class GigaTokConfig(TokenizerKindConfig):
    """CNN, transformer, quantizer and back, as published; its settings are the tokenizer's own.

    They stand among the tokenizer's keys because this architecture came first.
    """

    name: Literal["gigatok"]
    """Kind of tokenizer."""

    reads: ClassVar[frozenset[str]] = OF_SOME

    def tokens_per_image(self, tokenizer: TokenizerSettings, image_size: int) -> int:
        """Count the latent tokens, or the grid cells of a 2D tokenizer."""
        if tokenizer.variant == "1d":
            return tokenizer.num_latent_tokens
        return (image_size // tokenizer.cnn.downsampling) ** 2

    def check(self, tokenizer: TokenizerSettings) -> None:
        """Raise unless latent tokens form levels and the regularised layer exists."""
        tokens, layers = tokenizer.num_latent_tokens, tokenizer.decoder.layers
        # A power of two has a single bit.
        if tokenizer.variant == "1d" and tokens & (tokens - 1):
            raise ValueError(
                f"num_latent_tokens {tokens} is not a power of two "
                "(multi-level query initialisation doubles from 1)"
            )
        if tokenizer.semantic_weight > 0 and tokenizer.semantic_layer > layers:
            raise ValueError(
                f"semantic_layer {tokenizer.semantic_layer} is beyond the decoder's "
                f"{layers} layers"
            )

    def check_images(self, tokenizer: TokenizerSettings, image_size: int) -> None:
        """Raise unless the grid suffices for the adaptive norms and a 1D tokenizer's queries."""
        down = tokenizer.cnn.downsampling
        if image_size % down:
            raise ValueError(
                f"data.image_size {image_size} is not a multiple of {down}, "
                "the downsampling of tokenizer.cnn"
            )
        grid = image_size // down
        if tokenizer.variant == "2d":
            if grid < 2:
                raise ValueError(
                    f"data.image_size {image_size} over {down}, the downsampling of "
                    "tokenizer.cnn, gives a grid of a single cell; it needs two by two"
                )
            return
        rows, columns = finest_level(tokenizer.num_latent_tokens)
        # The adaptive norms take a variance over cells, so one cell is too few; the queries of
        # each level are means over equal blocks of cells.
        if grid < 2 or grid % rows or grid % columns:
            raise ValueError(
                f"tokenizer.num_latent_tokens {tokenizer.num_latent_tokens} needs a grid "
                f"that divides into {rows} x {columns}; data.image_size "
                f"{image_size} over {down} gives {grid} x {grid}"
            )

    def probed_width(self, tokenizer: TokenizerSettings, features: ProbedFeatures) -> int:
        """Count the channels at one of the reference's three places."""
        layers = tokenizer.decoder.layers
        if features == "decoder" and tokenizer.semantic_layer > layers:
            raise ValueError(
                f"tokenizer_probe.features decoder needs tokenizer.semantic_layer "
                f"{tokenizer.semantic_layer} of the decoder, which has {layers} layers"
            )
        widths = {
            "none": 0,
            "encoder": tokenizer.encoder.width,
            "latents": tokenizer.cnn.z_channels,
            # The residual stream, before the decoder projects it.
            "decoder": tokenizer.decoder.width,
        }
        return widths[features]

    def family(self, tokenizer: TokenizerSettings) -> str:
        """Name variant and layers: their kinds reach different speeds at the same FLOPs."""
        variant = tokenizer.variant
        return variant if variant == "1d" else f"2d-{tokenizer.transformer_layer}"

    def label_of(self, tokenizer: TokenizerSettings) -> str:
        """Name it as in the paper, encoder-decoder, such as `S-B`."""
        return f"{tokenizer.encoder.label}-{tokenizer.decoder.label}"


PUBLISHED = GigaTokConfig(name="gigatok")
"""Architecture of the published tokenizers, and the default."""

register(
    TokenizerKind(
        GigaTokConfig,
        "gigatok.models.tokenizer.tokenizer:GigaTok",
        "gigatok.models.tokenizer.layout:gigatok",
    )
)


def reads_of(architecture: Any) -> frozenset[str]:
    """Return the fields that an architecture reads, which may be a mapping still; unknown: all."""
    kind = kind_named(architecture, TOKENIZERS)
    return OF_SOME if kind is None else kind.config.reads
