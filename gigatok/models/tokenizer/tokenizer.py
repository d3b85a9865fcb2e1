"""The published tokenizer: CNN, transformer, quantizer and back, and its initialisations.

In 1D it is the authors' `VQVitModelPlus`, in 2D their `VQVitModel2DPlus` (SilentView/GigaTok).

B batch, N grid cells, T tokens (latent ones in 1D, grid cells in 2D), C channels, c channels of
the quantizer, S codes (in `semantic_BNS` teacher channels), H W of image or grid.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture
from gigatok.models.quantizers.base import build_quantizer
from gigatok.models.tokenizer.base import Tokenizer, TokenizerOutput
from gigatok.models.tokenizer.cnn import AdaptiveGroupNorm, Decoder, Encoder
from gigatok.models.tokenizer.qformer import (
    Attention,
    PointwiseConv,
    QFormer,
    QFormerDecoder,
    QFormerEncoder,
)
from gigatok.models.tokenizer.vit import GridTransformer, ViTDecoder, ViTEncoder


class GigaTok(Tokenizer):
    """CNN, transformer, quantizer, transformer and CNN, in 1D or 2D.

    Attributes are named as in the published checkpoints: `s2to1encoder` and `s1to2decoder` of a
    1D tokenizer are `s2dencoder` and `s2ddecoder` of a 2D one.

    Args:
        config: architecture.
        image_size: side of the square images, in pixels.
        teacher_dim: channels of the teacher's features; read only if `semantic_weight` > 0.
        teacher_grid: side of the teacher's grid, to which student features are average-pooled
            before the head; 0: the decoder's own grid, as published.
        activation_checkpointing: recompute layers of the transformers in the backward pass.

    Raises:
        ValueError: the image size does not fit the downsampling or the number of tokens.
    """

    s2to1encoder: QFormerEncoder
    s1to2decoder: QFormerDecoder
    s2dencoder: ViTEncoder
    s2ddecoder: ViTDecoder

    def __init__(
        self,
        config: TokenizerArchitecture,
        image_size: int,
        teacher_dim: int = 768,
        teacher_grid: int = 0,
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        grid, recompute = grid_size(config, image_size), activation_checkpointing
        super().__init__(
            config,
            image_size,
            teacher_dim,
            teacher_grid or grid,
            activation_checkpointing=recompute,
        )
        self.grid_size = grid
        z = config.cnn.z_channels
        head_dim = teacher_dim if config.semantic_weight > 0 else None
        # Parts are made in this order because each draws its weights from the same generator.
        self.encoder = Encoder(config.cnn)
        if config.variant == "1d":
            self.s2to1encoder = QFormerEncoder(config, grid, recompute=recompute)
            self.s1to2decoder = QFormerDecoder(config, grid, head_dim, recompute=recompute)
        else:
            self.s2dencoder = ViTEncoder(config, grid, recompute=recompute)
            self.s2ddecoder = ViTDecoder(config, grid, head_dim, recompute=recompute)
        self.decoder = Decoder(config.cnn)
        dim = config.code_shape.dim
        self.quant_conv = PointwiseConv(z, dim)
        self.post_quant_conv = PointwiseConv(dim, z)
        self.quantize = build_quantizer(config)
        INITIALISATIONS[config.init](self)

    @property
    def to_tokens(self) -> QFormerEncoder | ViTEncoder:
        """Transformer from the encoder's grid to tokens."""
        return self.s2to1encoder if self.config.variant == "1d" else self.s2dencoder

    @property
    def to_grid(self) -> QFormerDecoder | ViTDecoder:
        """Transformer from tokens to the decoder's grid."""
        return self.s1to2decoder if self.config.variant == "1d" else self.s2ddecoder

    def forward(self, image_BCHW: Tensor, *, shortcut: bool = False) -> TokenizerOutput:
        """Reconstruct images in [-1, 1], keeping what the losses need.

        With `shortcut` the encoder's grid is also decoded directly.
        """
        spatial = self.encoder(image_BCHW)
        # (B, C, h, w) -> (B, T, C) -> (B, T, c), quantised.
        quantized = self.quantize(self.quant_conv(self.to_tokens(spatial)))
        head = self.to_grid.distill_mlp
        # (B, T, c) -> (B, T, C) -> (B, C, h, w), and the stream (B, N, D) of one layer.
        rec_spatial, stream_BND = self.to_grid(
            self.post_quant_conv(quantized.z_BTC),
            stream_after=None if head is None else self.config.semantic_layer,
        )
        return TokenizerOutput(
            reconstruction_BCHW=self.decoder(rec_spatial),
            codes_BS=quantized.codes_BS,
            losses=quantized.losses,
            semantic_BNS=None if head is None else head(self._pool(stream_BND)),
            spatial_BCHW=spatial,
            rec_spatial_BCHW=rec_spatial,
            shortcut_BCHW=self.decoder(spatial) if shortcut else None,
        )

    def _pool(self, stream_BND: Tensor) -> Tensor:
        """Average the residual stream over the cells that fall into one teacher cell."""
        if self.teacher_grid == self.grid_size:
            return stream_BND
        batch, _, width = stream_BND.shape
        grid_BHWD = stream_BND.view(batch, self.grid_size, self.grid_size, width)
        pooled = F.adaptive_avg_pool2d(grid_BHWD.permute(0, 3, 1, 2), self.teacher_grid)
        return pooled.flatten(2).transpose(1, 2)

    def encode_latents(self, image_BCHW: Tensor) -> Tensor:
        """Compute latents before quantisation and normalisation, (B, T, c)."""
        latents: Tensor = self.quant_conv(self.to_tokens(self.encoder(image_BCHW)))
        return latents

    def probe_features(self, image_BCHW: Tensor, where: str) -> Tensor:
        """Compute what a linear probe sees of images, mean over the tokens or cells: (B, D).

        Args:
            image_BCHW: images in [-1, 1].
            where: `encoder`, the states after the encoder's last norm; `latents`, these projected
                to `z_channels`; `decoder`, of the codes, the stream after `semantic_layer`.
        """
        spatial = self.encoder(image_BCHW)
        if where == "encoder":
            features_BTD: Tensor = self.to_tokens.states(spatial)
            return features_BTD.mean(1)
        features_BTD = self.to_tokens(spatial)
        if where == "decoder":
            codes_BS = self.quantize.nearest(self.quant_conv(features_BTD))
            z_BTC = self.post_quant_conv(self.quantize.get_codebook_entry(codes_BS))
            features_BTD = self.to_grid(z_BTC, stream_after=self.config.semantic_layer)[1]
        return features_BTD.mean(1)

    def decode_latents(self, z_BTC: Tensor) -> Tensor:
        """Decode the vectors of codes, (B, T, c), to images (B, 3, H, W), not clamped."""
        image: Tensor = self.decoder(self.to_grid(self.post_quant_conv(z_BTC))[0])
        return image

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        return self.decoder.conv_out.weight

    @property
    def latent_projection(self) -> nn.Conv2d:
        """Projection to the quantizer's width."""
        return self.quant_conv

    @property
    def blocks(self) -> list[nn.Module]:
        """Layers of both transformers."""
        return [*self.to_tokens.transformer, *self.to_grid.transformer]

    @property
    def compiled_parts(self) -> list[nn.Module]:
        """Both CNNs, whose norms and activations fuse, and the layers of both transformers."""
        return [self.encoder, *self.blocks, self.decoder]


def grid_size(config: TokenizerArchitecture, image_size: int) -> int:
    """Divide an image into the cells of the feature grid, and return the grid's side.

    Raises:
        ValueError: not a whole number, or below 2, where the adaptive norms have no variance.
    """
    size, rest = divmod(image_size, config.cnn.downsampling)
    if rest or size < 2:
        raise ValueError(
            f"image_size {image_size} must be a multiple of {config.cnn.downsampling}, the "
            "downsampling of cnn, and at least twice as large"
        )
    return size


def initialise_as_reference(tokenizer: GigaTok) -> None:
    """Initialise as published: N(0, 0.02) weights, zero biases.

    Left at their constructors' values: group norms, positions (std width^-0.5), packed q/k/v
    projections (xavier), and the projections around the codebook (kaiming-uniform).
    """
    for part in (tokenizer.encoder, tokenizer.to_tokens, tokenizer.to_grid, tokenizer.decoder):
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                # Cut at +-2, which is 100 deviations: in effect a plain normal.
                nn.init.trunc_normal_(module.weight, std=0.02)
                _zero_bias(module)


def initialise_by_fan_in(tokenizer: GigaTok) -> None:
    """Initialise for runs of minutes: unit-variance signals, positions that break symmetry.

    Weights, q/k/v included, have std fan_in^-0.5 and biases are zero; what ends a residual branch
    of a transformer is smaller by the root of the number of branches, so that depth does not
    inflate the stream. Positions have unit scale, sin-cos on the grid. Adaptive norms start as
    plain ones.
    """
    for module in tokenizer.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            _zero_bias(module)
        elif isinstance(module, Attention):
            nn.init.normal_(module.in_proj_weight, std=module.in_proj_weight.shape[1] ** -0.5)
        elif isinstance(module, QFormer | GridTransformer):
            _unit_positions(module)
    for module in tokenizer.modules():
        if isinstance(module, QFormer | GridTransformer):
            _shrink_branches(module)
    for module in tokenizer.decoder.adaptive:
        assert isinstance(module, AdaptiveGroupNorm)
        nn.init.zeros_(module.gamma.weight)
        nn.init.ones_(module.gamma.bias)
        nn.init.zeros_(module.beta.weight)


INITIALISATIONS = {"reference": initialise_as_reference, "fan_in": initialise_by_fan_in}


def _zero_bias(module: nn.Linear | nn.Conv2d) -> None:
    assert module.bias is not None
    nn.init.zeros_(module.bias)


@torch.no_grad()
def _shrink_branches(transformer: QFormer | GridTransformer) -> None:
    for layer in transformer.transformer:
        attentions = [child for child in layer.children() if isinstance(child, Attention)]
        lasts = [attention.out_proj for attention in attentions]
        for last in (*lasts, layer.get_submodule("linear2")):
            assert isinstance(last, nn.Linear)
            last.weight.mul_(((len(lasts) + 1) * len(transformer.transformer)) ** -0.5)


@torch.no_grad()
def _unit_positions(transformer: QFormer | GridTransformer) -> None:
    table = transformer.positional_embedding
    table.copy_(sincos_positions(transformer.grid_size, table.shape[-1]).unsqueeze(1))
    if isinstance(transformer, QFormer):
        nn.init.normal_(transformer.latent_token_positional_embedding)


def sincos_positions(grid_size: int, width: int) -> Tensor:
    """Make sines and cosines of row and column, of unit mean square: (grid_size^2, width).

    Wavelengths run geometrically from 2 cells to 4 grids, so that both neighbours and halves of
    the grid are told apart. A width that is no multiple of 4 leaves the last columns at zero.
    """
    bands = width // 4
    wavelengths = torch.logspace(math.log10(2), math.log10(4 * grid_size), bands)
    angles_Gb = torch.arange(grid_size)[:, None] * (2 * math.pi / wavelengths)
    # Sine and cosine have a mean square of 1/2, hence the root of 2.
    waves_Gw = torch.cat([angles_Gb.sin(), angles_Gb.cos()], dim=1) * math.sqrt(2)
    rows = waves_Gw.repeat_interleave(grid_size, dim=0)
    columns = waves_Gw.repeat(grid_size, 1)
    return F.pad(torch.cat([rows, columns], dim=1), (0, width - 4 * bands))
