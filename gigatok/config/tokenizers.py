"""Tokenizer architectures by name: their settings, and what planning has to know of them.

`register` is the door for architectures from outside; the published one comes through it too.
Standard library and pydantic only: planning reads this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gigatok.config.evaluation import ProbedFeatures
from gigatok.config.open_union import NamedConfig, check_new, kind_named, name_of
from gigatok.plugins import table

if TYPE_CHECKING:
    # It has a field that holds one of these configs.
    from gigatok.config.tokenizer import TokenizerArchitecture

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


class TokenizerKindConfig(NamedConfig):
    """Settings of one kind of tokenizer; a subclass says what planning has to know of it.

    A subclass narrows `name` to its own and gives it no default. The quantizer is no part of it:
    each architecture goes with every quantizer.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    """Those of `OF_SOME` that it reads; keys leave out the others, and sizes need not be given."""

    def tokens_per_image(self, tokenizer: TokenizerArchitecture, image_size: int) -> int:
        """Count the tokens of an image.

        It may depend on these settings, and on `variant`, `cnn` and `num_latent_tokens`.
        """
        raise NotImplementedError

    def check(self, tokenizer: TokenizerArchitecture) -> None:
        """Raise `ValueError` unless the tokenizer's settings go together."""

    def check_images(self, tokenizer: TokenizerArchitecture, image_size: int) -> None:
        """Raise `ValueError` unless it takes images of this side; name keys in full."""

    def probed_width(self, tokenizer: TokenizerArchitecture, features: ProbedFeatures) -> int:
        """Count the channels of the features that a linear probe reads.

        Raises:
            ValueError: it has no such features.
        """
        raise ValueError(
            f"tokenizer_probe.features {features}: tokenizer.architecture {self.name} shows no "
            "such features; give none"
        )

    def family(self, tokenizer: TokenizerArchitecture) -> str:
        """Name what must agree for the times of two such tokenizers to be comparable."""
        return self.name

    def label_of(self, tokenizer: TokenizerArchitecture) -> str:
        """Name a tokenizer in names of trials and folders, with its sizes where it has some."""
        sizes = [getattr(tokenizer, end) for end in ("encoder", "decoder") if end in self.reads]
        return "-".join([self.label, *(size.label for size in sizes)])


@dataclass(frozen=True)
class TokenizerKind:
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

    config: type[TokenizerKindConfig]
    module: str
    layout: str | None = None
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Value of `tokenizer.architecture.name`."""
        return name_of(self.config)


TOKENIZERS: dict[str, TokenizerKind] = table("tokenizer")
"""Every architecture that `tokenizer.architecture` may name."""


def register(kind: TokenizerKind) -> TokenizerKind:
    """Add a tokenizer architecture, and return it.

    Raises:
        ValueError: another one has the name, or its name has a default.
    """
    check_new("tokenizer", kind.config, TOKENIZERS)
    TOKENIZERS[kind.name] = kind
    return kind


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

    def tokens_per_image(self, tokenizer: TokenizerArchitecture, image_size: int) -> int:
        """Count the latent tokens, or the grid cells of a 2D tokenizer."""
        if tokenizer.variant == "1d":
            return tokenizer.num_latent_tokens
        return (image_size // tokenizer.cnn.downsampling) ** 2

    def check(self, tokenizer: TokenizerArchitecture) -> None:
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

    def check_images(self, tokenizer: TokenizerArchitecture, image_size: int) -> None:
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

    def probed_width(self, tokenizer: TokenizerArchitecture, features: ProbedFeatures) -> int:
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

    def family(self, tokenizer: TokenizerArchitecture) -> str:
        """Name variant and layers: their kinds reach different speeds at the same FLOPs."""
        variant = tokenizer.variant
        return variant if variant == "1d" else f"2d-{tokenizer.transformer_layer}"

    def label_of(self, tokenizer: TokenizerArchitecture) -> str:
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


def configs() -> Mapping[str, type[TokenizerKindConfig]]:
    """Map the names of all architectures to their configs, as the registry is now."""
    return {name: kind.config for name, kind in TOKENIZERS.items()}


def reads_of(architecture: Any) -> frozenset[str]:
    """Return the fields that an architecture reads, which may be a mapping still; unknown: all."""
    kind = kind_named(architecture, TOKENIZERS)
    return OF_SOME if kind is None else kind.config.reads
