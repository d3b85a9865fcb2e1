"""Base of tokenizers: the interface to training, scores and saved models.

An architecture encodes images to latents and decodes latents to images; the quantizer between
the two is any of `gigatok.models.quantizers`.

B batch, T tokens, S codes (in `semantic_BNS` teacher channels), N teacher cells, c channels of the
quantizer, C channels, H W of image or grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any, NamedTuple

from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.tokenizers import TOKENIZERS
from gigatok.models.quantizers.base import Losses, Quantizer


class TokenizerOutput(NamedTuple):
    """Tensors that a forward pass leaves for the losses."""

    reconstruction_BCHW: Tensor
    """Unclamped images, (B, 3, H, W)."""
    codes_BS: Tensor
    losses: Losses | None
    """The quantizer's terms, weighted; None outside training."""
    semantic_BNS: Tensor | None = None
    """Student features per teacher cell, row-major; None without semantic regularisation."""
    spatial_BCHW: Tensor | None = None
    """Grid before the bottleneck; None where the architecture has no pair of grids."""
    rec_spatial_BCHW: Tensor | None = None
    """Grid of the same shape after the bottleneck."""
    shortcut_BCHW: Tensor | None = None
    """Images decoded from the grid before the bottleneck; None unless asked for."""


class Tokenizer(nn.Module, ABC):
    """Autoencoder of images through discrete codes; a subclass makes `quantize` and its parts.

    Images are float (B, 3, H, W) in [-1, 1], and square. Weights are drawn from torch's global
    generator, and from nothing else.

    Args:
        config: architecture, with the settings of its kind and of the quantizer.
        image_size: side of the images, in pixels.
        teacher_dim: channels of the teacher's features; 0 without semantic regularisation.
        teacher_grid: side of the teacher's grid; 0: the architecture's own.
        activation_checkpointing: recompute layers in the backward pass
            (`gigatok.models.recompute.run_layer`); an architecture without layers may ignore it.
    """

    quantize: Quantizer
    """Result of `build_quantizer(config)`."""

    def __init__(
        self,
        config: TokenizerArchitecture,
        image_size: int,
        teacher_dim: int = 0,
        teacher_grid: int = 0,
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.teacher_dim = teacher_dim
        self.teacher_grid = teacher_grid
        self.activation_checkpointing = activation_checkpointing

    @abstractmethod
    def encode_latents(self, image_BCHW: Tensor) -> Tensor:
        """Compute latents before quantisation, (B, T, c)."""

    @abstractmethod
    def decode_latents(self, z_BTC: Tensor) -> Tensor:
        """Decode the vectors of codes, (B, T, c), to images (B, 3, H, W), not clamped."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """Weight that makes the image, where the adaptive adversarial weight compares losses."""

    @property
    def latent_projection(self) -> nn.Conv2d | None:
        """1x1 convolution that makes the latents, which `codebook_init: data` whitens.

        None: there is none; codebooks are then drawn from latents as they are.
        """
        return None

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Large parts that FSDP gathers and frees one by one; the rest stays together."""
        return ()

    @property
    def compiled_parts(self) -> Sequence[nn.Module]:
        """Modules that torch.compile takes one by one; without any it takes the whole model.

        Equal layers share what is compiled, so that a deep model does not take many minutes.
        """
        return self.blocks

    def forward(self, image_BCHW: Tensor, *, shortcut: bool = False) -> TokenizerOutput:
        """Reconstruct images in [-1, 1], keeping what the losses need.

        With `shortcut` the grid before the bottleneck is also decoded directly; it is asked for
        only of architectures that read `shortcut_images`.
        """
        quantized = self.quantize(self.encode_latents(image_BCHW))
        reconstruction = self.decode_latents(quantized.z_BTC)
        return TokenizerOutput(reconstruction, quantized.codes_BS, quantized.losses)

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """Encode images in [-1, 1]: codes (B, S), int64."""
        return self.quantize.nearest(self.encode_latents(image_BCHW))

    def decode(self, codes_BS: Tensor) -> Tensor:
        """Decode codes to images (B, 3, H, W), not clamped."""
        return self.decode_latents(self.quantize.get_codebook_entry(codes_BS))

    def probe_features(self, image_BCHW: Tensor, where: str) -> Tensor:
        """Compute what a linear probe sees of images in [-1, 1]: (B, D), one vector per image.

        Args:
            image_BCHW: images.
            where: a value of `tokenizer_probe.features` for which the config's `probed_width`
                says D.
        """
        raise ValueError(f"{type(self).__name__} has no features {where!r}")


def build_tokenizer(config: TokenizerArchitecture, image_size: int, **options: Any) -> Tokenizer:
    """Build the tokenizer that an architecture names, with fresh weights.

    Args:
        config: architecture.
        image_size: side of the images, in pixels.
        options: further arguments of `Tokenizer`.
    """
    kind: type[Tokenizer] = resolve_name(TOKENIZERS[config.architecture.name].module)
    return kind(config, image_size, **options)
