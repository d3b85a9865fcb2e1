"""Two well-known tokenizers beside GigaTok, as a plug-in. Imports no torch: planning reads this.

    plugins: [../peers]
    axes: {tokenizer.architecture: [{name: gigatok}, {name: vqvae}, {name: titok}]}

`vqvae` is the convolutional tokenizer of "Neural Discrete Representation Learning" (arXiv
1711.00937). `titok` follows "An Image is Worth 32 Tokens" (arXiv 2406.07550): a transformer over
patches and latent tokens, of which the latent ones alone are quantised, without a CNN. It is
trained from pixels to pixels in one stage, without the codes of another tokenizer as targets.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from gigatok.config import ProbedFeatures
from gigatok.config.kinds.tokenizers import (
    TokenizerKind,
    TokenizerKindConfig,
    TokenizerSettings,
    register,
)


class VQVAEConfig(TokenizerKindConfig):
    """Strided convolutions, residual blocks, quantizer, and the same back: a token per cell."""

    name: Literal["vqvae"]
    """Kind of tokenizer."""
    width: PositiveInt = 128
    """Channels of all convolutions."""
    halvings: PositiveInt = 1
    """Convolutions that halve the side of the image."""
    residual_blocks: NonNegativeInt = 2
    """Blocks of two convolutions at the grid's resolution, in each direction."""

    def tokens_per_image(self, tokenizer: TokenizerSettings, image_size: int) -> int:
        """Count the cells of the grid."""
        return int(image_size // 2**self.halvings) ** 2

    def check_images(self, tokenizer: TokenizerSettings, image_size: int) -> None:
        """Raise unless the side can be halved that often."""
        if image_size % 2**self.halvings:
            raise ValueError(
                f"data.image_size {image_size} cannot be halved {self.halvings} times "
                "(tokenizer.architecture.halvings)"
            )

    def probed_width(self, tokenizer: TokenizerSettings, features: ProbedFeatures) -> int:
        """Count the channels before the quantizer's projection."""
        return self.width if features == "encoder" else super().probed_width(tokenizer, features)


class TiTokConfig(TokenizerKindConfig):
    """Transformers from patches to latent tokens and back; sizes and tokens as of GigaTok."""

    name: Literal["titok"]
    """Kind of tokenizer."""
    patch: PositiveInt = 2
    """Side of a patch in pixels."""

    reads: ClassVar[frozenset[str]] = frozenset({"encoder", "decoder", "num_latent_tokens"})

    def tokens_per_image(self, tokenizer: TokenizerSettings, image_size: int) -> int:
        """Return the number of latent tokens."""
        return int(tokenizer.num_latent_tokens)

    def check_images(self, tokenizer: TokenizerSettings, image_size: int) -> None:
        """Raise unless patches cover the image."""
        if image_size % self.patch:
            raise ValueError(
                f"data.image_size {image_size} is not a multiple of {self.patch} "
                "(tokenizer.architecture.patch)"
            )

    def probed_width(self, tokenizer: TokenizerSettings, features: ProbedFeatures) -> int:
        """Count the channels of the encoder's latent tokens."""
        if features == "encoder":
            return int(tokenizer.encoder.width)
        return super().probed_width(tokenizer, features)


register(
    TokenizerKind(
        VQVAEConfig, module=f"{__name__}.vqvae:VQVAE", example={"width": 8, "residual_blocks": 1}
    )
)
register(TokenizerKind(TiTokConfig, module=f"{__name__}.titok:TiTok"))
