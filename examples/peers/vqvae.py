"""Convolutional tokenizer of "Neural Discrete Representation Learning" (arXiv 1711.00937).

B batch, T tokens (cells of the grid, row-major), C channels of the quantizer, W width, H image.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture
from gigatok.models.quantizers.base import build_quantizer
from gigatok.models.tokenizer.base import Tokenizer


class ResidualBlock(nn.Module):
    """A 3x3 and a 1x1 convolution, each after a ReLU, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)),
            *(nn.ReLU(), nn.Conv2d(width, width, 1)),
        )

    def forward(self, x_BWHH: Tensor) -> Tensor:
        """Update features of the grid's resolution."""
        out: Tensor = x_BWHH + self.residual(x_BWHH)
        return out


class VQVAE(Tokenizer):
    """Convolutions with stride, residual blocks, quantizer, and the same back."""

    def __init__(
        self, config: TokenizerArchitecture, image_size: int, *args: Any, **options: Any
    ) -> None:
        super().__init__(config, image_size, *args, **options)
        kind: Any = config.architecture
        width, dim = kind.width, config.code_shape.dim
        self.grid = image_size // 2**kind.halvings
        down: list[nn.Module] = []
        for level in range(kind.halvings):
            down += [nn.Conv2d(3 if level == 0 else width, width, 4, 2, 1), nn.ReLU()]
        blocks = [ResidualBlock(width) for _ in range(kind.residual_blocks)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(width, width, 3, padding=1), *blocks)
        self.to_codes = nn.Conv2d(width, dim, 1)
        self.quantize = build_quantizer(config)
        self.from_codes = nn.Conv2d(dim, width, 3, padding=1)
        blocks = [ResidualBlock(width) for _ in range(kind.residual_blocks)]
        up: list[nn.Module] = []
        for _ in range(kind.halvings - 1):
            up += [nn.ReLU(), nn.ConvTranspose2d(width, width, 4, 2, 1)]
        self.decoder = nn.Sequential(*blocks, *up, nn.ReLU())
        self.to_image = nn.ConvTranspose2d(width, 3, 4, 2, 1)

    def encode_latents(self, image_BCHW: Tensor) -> Tensor:
        """Compute latents before quantisation, (B, T, C)."""
        latents: Tensor = self.to_codes(self.encoder(image_BCHW)).flatten(2).transpose(1, 2)
        return latents

    def decode_latents(self, z_BTC: Tensor) -> Tensor:
        """Decode the vectors of codes, (B, T, C), to images (B, 3, H, H), not clamped."""
        z_BCHW = z_BTC.transpose(1, 2).reshape(len(z_BTC), -1, self.grid, self.grid)
        image: Tensor = self.to_image(self.decoder(self.from_codes(z_BCHW)))
        return image

    def probe_features(self, image_BCHW: Tensor, where: str) -> Tensor:
        """Average the encoder's features over the grid: (B, W)."""
        features_BWHH: Tensor = self.encoder(image_BCHW)
        return features_BWHH.mean((2, 3))

    @property
    def last_layer(self) -> Tensor:
        """Weight of the convolution that makes the image."""
        return self.to_image.weight

    @property
    def latent_projection(self) -> nn.Conv2d:
        """Projection to the quantizer's channels."""
        return self.to_codes
