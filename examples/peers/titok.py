"""Tokenizer of latent tokens without a CNN, after TiTok (arXiv 2406.07550).

B batch, P patches, T latent tokens, C channels of the quantizer, D width, H image, p patch side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture, TransformerSize
from gigatok.models.quantizers.base import build_quantizer
from gigatok.models.recompute import run_layer
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.models.tokenizer.qformer import PointwiseConv
from gigatok.models.tokenizer.vit import ViTLayer


class Transformer(nn.Module):
    """Layers over patches and latent tokens together, with learned positions for both."""

    def __init__(self, size: TransformerSize, patches: int, latents: int, recompute: bool) -> None:
        super().__init__()
        width = size.width
        self.recompute = recompute
        # Of unit scale: with smaller ones attention takes long to tell the places apart.
        self.position = nn.Parameter(torch.randn(patches + latents, width))
        self.norm_before = nn.LayerNorm(width)
        self.layers = nn.ModuleList(ViTLayer(size) for _ in range(size.layers))
        self.norm_after = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Map a sequence of patches and then latent tokens, (B, P + T, D), to its states."""
        x_BND = self.norm_before(x_BND + self.position)
        for layer in self.layers:
            x_BND = run_layer(layer, x_BND, recompute=self.recompute)
        states: Tensor = self.norm_after(x_BND)
        return states


class TiTok(Tokenizer):
    """Patches and latent tokens through a transformer, quantizer, and a transformer back."""

    def __init__(
        self, config: TokenizerArchitecture, image_size: int, *args: Any, **options: Any
    ) -> None:
        super().__init__(config, image_size, *args, **options)
        kind: Any = config.architecture
        self.patch, self.grid = kind.patch, image_size // kind.patch
        patches, latents = self.grid**2, config.num_latent_tokens
        encoder, decoder, dim = config.encoder.width, config.decoder.width, config.code_shape.dim
        recompute = self.activation_checkpointing
        self.embed = nn.Conv2d(3, encoder, self.patch, self.patch)
        # A token's place alone tells latent tokens apart, so they start as one vector.
        self.latent = nn.Parameter(torch.randn(encoder) * encoder**-0.5)
        self.encoder = Transformer(config.encoder, patches, latents, recompute)
        self.to_codes = PointwiseConv(encoder, dim)
        self.quantize = build_quantizer(config)
        self.from_codes = PointwiseConv(dim, decoder)
        self.mask = nn.Parameter(torch.randn(decoder) * decoder**-0.5)
        self.decoder = Transformer(config.decoder, patches, latents, recompute)
        self.to_pixels = nn.Linear(decoder, 3 * self.patch**2)

    def _states(self, image_BCHW: Tensor) -> Tensor:
        """Compute the encoder's states of the latent tokens, (B, T, D)."""
        patches_BPD = self.embed(image_BCHW).flatten(2).transpose(1, 2)
        latents_BTD = self.latent.expand(len(image_BCHW), self.config.num_latent_tokens, -1)
        states_BND: Tensor = self.encoder(torch.cat([patches_BPD, latents_BTD], dim=1))
        return states_BND[:, patches_BPD.shape[1] :]

    def encode_latents(self, image_BCHW: Tensor) -> Tensor:
        """Compute latents before quantisation, (B, T, C)."""
        latents: Tensor = self.to_codes(self._states(image_BCHW))
        return latents

    def decode_latents(self, z_BTC: Tensor) -> Tensor:
        """Decode the vectors of codes, (B, T, C), to images (B, 3, H, H), not clamped."""
        masks_BPD = self.mask.expand(len(z_BTC), self.grid**2, -1)
        states_BND = self.decoder(torch.cat([masks_BPD, self.from_codes(z_BTC)], dim=1))
        pixels_BPc = self.to_pixels(states_BND[:, : self.grid**2])
        pixels_BcHH = pixels_BPc.transpose(1, 2).reshape(len(z_BTC), -1, self.grid, self.grid)
        return F.pixel_shuffle(pixels_BcHH, self.patch)

    def probe_features(self, image_BCHW: Tensor, where: str) -> Tensor:
        """Average the encoder's states of the latent tokens: (B, D)."""
        return self._states(image_BCHW).mean(1)

    @property
    def last_layer(self) -> Tensor:
        """Weight that makes the pixels."""
        return self.to_pixels.weight

    @property
    def latent_projection(self) -> nn.Conv2d:
        """Projection to the quantizer's channels."""
        return self.to_codes

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Layers of both transformers."""
        return [*self.encoder.layers, *self.decoder.layers]
