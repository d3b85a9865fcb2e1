"""The 2D baseline's transformers: grid to grid, in three types of layer (spec 2).

Batch-first inside; parameters are named and shaped as in the published checkpoints. Both
directions have the interface of the Q-Formers (`gigatok.models.tokenizer.qformer`): the encoder
leaves tokens, which here are the grid's cells in row-major order, and the decoder takes them.

B batch, H W grid, N = H*W grid cells, C z_channels, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TransformerSize
from gigatok.models.recompute import run_layer
from gigatok.models.tokenizer.qformer import Attention, PointwiseConv, QFormerLayer, semantic_head


class ViTLayer(nn.Module):
    """Pre-norm self-attention and MLP; positions are not its business."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        d = size.width
        self.self_attn = Attention(d, size.heads)
        self.linear1 = nn.Linear(d, 4 * d)
        self.linear2 = nn.Linear(4 * d, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        u = self.norm1(x_BND)
        x = x_BND + self.self_attn(u, u, u)
        out: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return out


class DoubleAttentionLayer(QFormerLayer):
    """The parameters of a Q-Former layer, but both attentions are to the normalised stream."""

    def forward(self, x_BND: Tensor, pos_ND: Tensor) -> Tensor:  # type: ignore[override]
        """(B, N, D) -> (B, N, D); positions are added to queries and keys of both."""
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
    """A layer and how the token stream and the positions enter it.

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
"""By the name that `tokenizer.transformer_layer` takes."""


class GridTransformer(nn.Module):
    """What both directions share: the positions, the layers and the final norm."""

    def __init__(
        self, size: TransformerSize, layer: str, *, grid_size: int, activation_checkpointing: bool
    ) -> None:
        super().__init__()
        d = size.width
        self.grid_size = grid_size
        self.activation_checkpointing = activation_checkpointing
        self.layer_type = LAYER_TYPES[layer]
        self.positional_embedding = nn.Parameter(d**-0.5 * torch.randn(grid_size**2, 1, d))
        self.transformer = nn.ModuleList(self.layer_type.build(size) for _ in range(size.layers))
        self.ln_post = nn.LayerNorm(d)

    def run(self, x_BND: Tensor, stream_after: int | None = None) -> tuple[Tensor, Tensor | None]:
        """All layers and the final norm; also the residual stream after one of them, from 1."""
        pos_ND = self.positional_embedding.squeeze(1)
        if self.layer_type.adds_positions_once:
            x_BND = x_BND + pos_ND
        stream_BND = None
        for number, layer in enumerate(self.transformer, start=1):
            inputs = self.layer_type.inputs(x_BND, pos_ND)
            x_BND = run_layer(layer, *inputs, recompute=self.activation_checkpointing)
            if number == stream_after:
                stream_BND = x_BND
        return self.ln_post(x_BND), stream_BND


class ViTEncoder(GridTransformer):
    """Grid to tokens, one per cell."""

    def __init__(
        self,
        size: TransformerSize,
        layer: str,
        z_channels: int,
        *,
        grid_size: int,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            size, layer, grid_size=grid_size, activation_checkpointing=activation_checkpointing
        )
        self.ln_pre = nn.LayerNorm(z_channels)
        self.encoder_embed = nn.Linear(z_channels, size.width)
        self.conv_out = PointwiseConv(size.width, z_channels)

    def forward(self, spatial_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> token features (B, N, C), row-major."""
        out: Tensor = self.conv_out(self.states(spatial_BCHW))
        return out

    def states(self, spatial_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> normalised states of all tokens after the last layer, (B, N, D)."""
        x_BNC = spatial_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
        return self.run(self.encoder_embed(self.ln_pre(x_BNC)))[0]


class ViTDecoder(GridTransformer):
    """Tokens back to the grid; `distill_mlp` as in the Q-Former decoder."""

    def __init__(
        self,
        size: TransformerSize,
        layer: str,
        z_channels: int,
        *,
        grid_size: int,
        teacher_dim: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            size, layer, grid_size=grid_size, activation_checkpointing=activation_checkpointing
        )
        self.ln_pre = nn.LayerNorm(z_channels)
        self.decoder_embed = nn.Linear(z_channels, size.width)
        self.conv_out = nn.Conv2d(size.width, z_channels, 3, padding=1)
        self.distill_mlp: nn.Sequential | None = None
        if teacher_dim is not None:
            self.distill_mlp = semantic_head(size.width, teacher_dim)

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
        x_BND, stream_BND = self.run(self.decoder_embed(self.ln_pre(z_BNC)), stream_after)
        x_BHWD = x_BND.view(len(x_BND), self.grid_size, self.grid_size, -1)
        return self.conv_out(x_BHWD.permute(0, 3, 1, 2)), stream_BND
