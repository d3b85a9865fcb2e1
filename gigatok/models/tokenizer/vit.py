"""Transformers of the 2D baseline: grid to grid, in three types of layer.

They are those of the authors' `VQVitModel2DPlus` (SilentView/GigaTok), but batch-first.
Parameters are named and shaped as in the published checkpoints. Both directions have the
interface of the Q-Formers (`gigatok.models.tokenizer.qformer`): the encoder leaves tokens, which
here are the grid's cells in row-major order, and the decoder takes them.

B batch, H W grid, N = H*W grid cells, C z_channels, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture, TransformerSize
from gigatok.models.recompute import run_layer
from gigatok.models.tokenizer.qformer import Attention, GridDecoder, PointwiseConv, QFormerLayer


class ViTLayer(nn.Module):
    """Pre-norm self-attention and MLP; positions are in the stream already."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        d = size.width
        self.self_attn = Attention(d, size.heads)
        self.linear1 = nn.Linear(d, 4 * d)
        self.linear2 = nn.Linear(4 * d, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Update the stream, (B, N, D)."""
        u = self.norm1(x_BND)
        x = x_BND + self.self_attn(u, u, u)
        out: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return out


class DoubleAttentionLayer(QFormerLayer):
    """Layer with a Q-Former layer's parameters, whose attentions are both to the normed stream."""

    def forward(self, x_BND: Tensor, pos_ND: Tensor) -> Tensor:  # type: ignore[override]
        """Update the stream, (B, N, D); positions are added to queries and keys of both."""
        u = self.norm1(x_BND)
        q = u + pos_ND
        x = x_BND + self.self_attn(q, q, u)
        u = self.norm2(x)
        q = u + pos_ND
        x = x + self.multihead_attn(q, q, u)
        out: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm3(x))))
        return out


@dataclass(frozen=True)
class LayerType:
    """Kind of layer, and how the token stream and the positions enter it.

    Attributes:
        build: constructor.
        inputs: (stream, positions) -> what its forward takes.
        adds_positions_once: positions join the stream before the first layer.
    """

    build: Callable[[TransformerSize], nn.Module]
    inputs: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    adds_positions_once: bool = False


LAYER_TYPES = {
    "vit": LayerType(ViTLayer, lambda x, pos: (x,), adds_positions_once=True),
    # The memory is the stream as it enters the layer: not normalised, before self-attention.
    "qformer": LayerType(QFormerLayer, lambda x, pos: (x, pos, x + pos, x)),
    "double_attention": LayerType(DoubleAttentionLayer, lambda x, pos: (x, pos)),
}
"""Kinds by the name that `tokenizer.transformer_layer` takes."""


class GridTransformer(nn.Module):
    """Base of both directions: the positions, the layers and the final norm."""

    def __init__(
        self, size: TransformerSize, layer: str, grid_size: int, *, recompute: bool
    ) -> None:
        super().__init__()
        d = size.width
        self.grid_size, self.recompute = grid_size, recompute
        self.layer_type = LAYER_TYPES[layer]
        self.positional_embedding = nn.Parameter(d**-0.5 * torch.randn(grid_size**2, 1, d))
        self.transformer = nn.ModuleList(self.layer_type.build(size) for _ in range(size.layers))
        self.ln_post = nn.LayerNorm(d)

    def run(self, x_BND: Tensor, stream_after: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Run all layers and the final norm; also return the stream after one layer, from 1."""
        pos_ND = self.positional_embedding.squeeze(1)
        if self.layer_type.adds_positions_once:
            x_BND = x_BND + pos_ND
        stream_BND = None
        for number, layer in enumerate(self.transformer, start=1):
            inputs = self.layer_type.inputs(x_BND, pos_ND)
            x_BND = run_layer(layer, *inputs, recompute=self.recompute)
            if number == stream_after:
                stream_BND = x_BND
        return self.ln_post(x_BND), stream_BND


class ViTEncoder(GridTransformer):
    """Transformer from grid to tokens, one per cell; arguments as of `QFormerEncoder`."""

    def __init__(
        self, config: TokenizerArchitecture, grid_size: int, *, recompute: bool = False
    ) -> None:
        z, d = config.cnn.z_channels, config.encoder.width
        super().__init__(config.encoder, config.transformer_layer, grid_size, recompute=recompute)
        self.ln_pre = nn.LayerNorm(z)
        self.encoder_embed = nn.Linear(z, d)
        self.conv_out = PointwiseConv(d, z)

    def forward(self, spatial_BCHW: Tensor) -> Tensor:
        """Encode: (B, C, H, W) -> token features (B, N, C), row-major."""
        out: Tensor = self.conv_out(self.states(spatial_BCHW))
        return out

    def states(self, spatial_BCHW: Tensor) -> Tensor:
        """Compute normalised states of all tokens after the last layer, (B, N, D)."""
        x_BNC = spatial_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
        return self.run(self.encoder_embed(self.ln_pre(x_BNC)))[0]


class ViTDecoder(GridTransformer, GridDecoder):
    """Transformer from tokens back to the grid; arguments and head as of `QFormerDecoder`."""

    def __init__(
        self,
        config: TokenizerArchitecture,
        grid_size: int,
        teacher_dim: int | None = None,
        *,
        recompute: bool = False,
    ) -> None:
        super().__init__(config.decoder, config.transformer_layer, grid_size, recompute=recompute)
        self.add_ends(config, teacher_dim)

    def forward(
        self, z_BNC: Tensor, stream_after: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode tokens to the grid.

        Args:
            z_BNC: token features, row-major.
            stream_after: layer, counted from 1, whose residual stream is returned as well.

        Returns:
            Grid features (B, C, H, W), channels-last, and the residual stream (B, N, D) or None.
        """
        x_BND, stream_BND = self.run(self.embed(z_BNC), stream_after)
        return self.project(x_BND), stream_BND
