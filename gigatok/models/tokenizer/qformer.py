"""Q-Formers between the image grid and the 1D latent tokens.

They are `ViTEncoder` and `ViTDecoder` of the authors' `VQVitModelPlus` (SilentView/GigaTok), but
batch-first. Parameters are named and shaped as in the published checkpoints. Learned positions are
added to queries and keys of every layer, never to values or the residual stream.

B batch, H W grid, N = H*W grid cells, T latent tokens, Q queries, S memory tokens,
C z_channels, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture, TransformerSize, finest_level
from gigatok.models.recompute import run_layer


class PointwiseConv(nn.Conv2d):
    """1x1 convolution of channels-last tokens.

    A linear layer would do the same, but the checkpoints hold the weights of a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Map (..., in) -> (..., out)."""
        return F.linear(x_BTC, self.weight.flatten(1), self.bias)


class Attention(nn.Module):
    """Multi-head attention with the parameters of `nn.MultiheadAttention`, by fused kernels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        # As in the library; the reference's initialisation leaves these weights alone.
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query_BQD: Tensor, key_BSD: Tensor, value_BSD: Tensor) -> Tensor:
        """Attend from every query to all keys: (B, Q, D)."""
        # The three inputs may differ, so the packed projection is taken apart.
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        inputs = (query_BQD, key_BSD, value_BSD)
        q, k, v = (
            F.linear(x, weight, bias).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        # The authors' call returns averaged attention maps as well, which forces the slow path;
        # the fused kernel gives the same output up to rounding.
        x_BHQd = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(x_BHQd.transpose(1, 2).flatten(2))
        return out


class QFormerLayer(nn.Module):
    """Pre-norm DETR decoder layer: self-attention, attention to the memory, MLP.

    The memory is not normalised and is the same in every layer.
    """

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        d = size.width
        self.self_attn = Attention(d, size.heads)
        self.multihead_attn = Attention(d, size.heads)
        self.linear1 = nn.Linear(d, 4 * d)
        self.linear2 = nn.Linear(4 * d, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.norm3 = nn.LayerNorm(d)

    def forward(
        self, x_BQD: Tensor, query_pos_QD: Tensor, key_BSD: Tensor, memory_BSD: Tensor
    ) -> Tensor:
        """Update the stream x; `key_BSD` is the memory plus its positions."""
        u = self.norm1(x_BQD)
        # Positions reach queries and keys only; values and the stream stay free of them (DETR).
        q = u + query_pos_QD
        x = x_BQD + self.self_attn(q, q, u)
        x = x + self.multihead_attn(self.norm2(x) + query_pos_QD, key_BSD, memory_BSD)
        out: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm3(x))))
        return out


def semantic_head(width: int, teacher_dim: int) -> nn.Sequential:
    """Build the MLP from the residual stream to teacher features, which only training uses."""
    return nn.Sequential(
        nn.Linear(width, 4 * width),
        nn.SiLU(),
        nn.Linear(4 * width, 4 * width),
        nn.SiLU(),
        nn.Linear(4 * width, teacher_dim),
    )


def pool_to_queries(grid_BHWD: Tensor, num_latent_tokens: int) -> Tensor:
    """Average the grid from coarse to fine: the multi-level initialisation of queries.

    Token 0 is the mean; then level l = 0, 1, ... has 2^(l//2) rows by 2^((l+1)//2) columns of
    non-overlapping averages, row-major: 1 + 1 + 2 + 4 + 8 + ... = T tokens in all.
    """
    batch, height, width, dim = grid_BHWD.shape
    rows, columns = finest_level(num_latent_tokens)
    # The finest level is pooled from the grid, every other one from the level below it.
    pooled = grid_BHWD.reshape(batch, rows, height // rows, columns, width // columns, dim)
    pooled = pooled.mean((2, 4))
    groups = [pooled.flatten(1, 2)]
    while rows * columns > 1:
        if columns > rows:
            columns //= 2
            pooled = pooled.view(batch, rows, columns, 2, dim).mean(3)
        else:
            rows //= 2
            pooled = pooled.view(batch, rows, 2, columns, dim).mean(2)
        groups.append(pooled.flatten(1, 2))
    # The mean comes twice, so that the counts add up to a power of two; one token takes it once.
    groups.append(groups[-1])
    return torch.cat(groups[::-1], dim=1)[:, :num_latent_tokens]


class QFormer(nn.Module):
    """Base of both directions: the positions, the layers and the final norm."""

    def __init__(
        self, size: TransformerSize, num_latent_tokens: int, grid_size: int, *, recompute: bool
    ) -> None:
        super().__init__()
        # Tables are drawn with std width^-0.5, before the layers; their axis of length 1 is the
        # batch of the authors' sequence-first tensors.
        d, scale = size.width, size.width**-0.5
        self.grid_size, self.num_latent_tokens = grid_size, num_latent_tokens
        self.recompute = recompute
        self.positional_embedding = nn.Parameter(scale * torch.randn(grid_size**2, 1, d))
        self.latent_token_positional_embedding = nn.Parameter(
            scale * torch.randn(num_latent_tokens, 1, d)
        )
        self.transformer = nn.ModuleList(QFormerLayer(size) for _ in range(size.layers))
        self.ln_post = nn.LayerNorm(d)

    def layer(self, index: int, *inputs: Tensor) -> Tensor:
        """Apply one layer, keeping only its inputs for the backward pass where so configured."""
        return run_layer(self.transformer[index], *inputs, recompute=self.recompute)


class QFormerEncoder(QFormer):
    """Transformer from grid to latent tokens; queries start as pooled grid features.

    Args:
        config: architecture of the whole tokenizer.
        grid_size: side of the grid.
        recompute: recompute layers in the backward pass.

    Raises:
        ValueError: the grid does not divide into the finest level of queries.
    """

    def __init__(
        self, config: TokenizerArchitecture, grid_size: int, *, recompute: bool = False
    ) -> None:
        num_latent_tokens, d = config.num_latent_tokens, config.encoder.width
        super().__init__(config.encoder, num_latent_tokens, grid_size, recompute=recompute)
        rows, columns = finest_level(num_latent_tokens)
        if grid_size % rows or grid_size % columns:
            raise ValueError(
                f"num_latent_tokens {num_latent_tokens} needs a grid that divides into {rows} x "
                f"{columns} parts; it is {grid_size} x {grid_size}. Use fewer latent tokens, "
                "larger images or less downsampling."
            )
        self.ln_pre = nn.LayerNorm(config.cnn.z_channels)
        self.encoder_embed = nn.Linear(config.cnn.z_channels, d)
        self.global_proj = nn.Linear(d, d)
        self.conv_out = PointwiseConv(d, config.cnn.z_channels)

    def forward(self, spatial_BCHW: Tensor) -> Tensor:
        """Encode: (B, C, H, W) -> latent features (B, T, C)."""
        out: Tensor = self.conv_out(self.states(spatial_BCHW))
        return out

    def states(self, spatial_BCHW: Tensor) -> Tensor:
        """Compute normalised states of all tokens after the last layer, (B, T, D)."""
        memory_BHWD = self.encoder_embed(self.ln_pre(spatial_BCHW.permute(0, 2, 3, 1)))
        memory_BND = memory_BHWD.flatten(1, 2)
        # Computed once: all layers attend to the same memory.
        key_BND = memory_BND + self.positional_embedding.squeeze(1)
        query_pos_TD = self.latent_token_positional_embedding.squeeze(1)
        # (B, H, W, D) -> (B, T, D): pooled from coarse to fine, so token 0 starts as the mean.
        x_BTD = self.global_proj(pool_to_queries(memory_BHWD, self.num_latent_tokens))
        for index in range(len(self.transformer)):
            x_BTD = self.layer(index, x_BTD, query_pos_TD, key_BND, memory_BND)
        states: Tensor = self.ln_post(x_BTD)
        return states


class GridDecoder(nn.Module):
    """Ends that decoders of both variants share: token features in, grid out, semantic head."""

    grid_size: int

    def add_ends(self, config: TokenizerArchitecture, teacher_dim: int | None) -> None:
        """Add the layers, behind those of the transformer, as seeded runs depend on the order."""
        z, d = config.cnn.z_channels, config.decoder.width
        self.ln_pre = nn.LayerNorm(z)
        self.decoder_embed = nn.Linear(z, d)
        # 3x3 here and 1x1 in the encoder, as in the authors' `ViTDecoder`.
        self.conv_out = nn.Conv2d(d, z, 3, padding=1)
        self.distill_mlp = None if teacher_dim is None else semantic_head(d, teacher_dim)

    def embed(self, z_BTC: Tensor) -> Tensor:
        """Widen token features, (B, T, C) -> (B, T, D)."""
        out: Tensor = self.decoder_embed(self.ln_pre(z_BTC))
        return out

    def project(self, x_BND: Tensor) -> Tensor:
        """Turn the final states into the grid, (B, N, D) -> (B, C, H, W), channels-last."""
        # (B, N, D) -> (B, H, W, D), row-major.
        x_BHWD = x_BND.view(len(x_BND), self.grid_size, self.grid_size, -1)
        out: Tensor = self.conv_out(x_BHWD.permute(0, 3, 1, 2))
        return out


class QFormerDecoder(QFormer, GridDecoder):
    """Transformer from latent tokens to grid; every grid query starts as latent token 0.

    Args:
        config: architecture of the whole tokenizer.
        grid_size: side of the grid.
        teacher_dim: channels of the teacher's features, to which `distill_mlp` maps the residual
            stream; None: there is no such head.
        recompute: recompute layers in the backward pass.
    """

    def __init__(
        self,
        config: TokenizerArchitecture,
        grid_size: int,
        teacher_dim: int | None = None,
        *,
        recompute: bool = False,
    ) -> None:
        super().__init__(config.decoder, config.num_latent_tokens, grid_size, recompute=recompute)
        self.add_ends(config, teacher_dim)

    def forward(
        self, z_BTC: Tensor, stream_after: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode latent tokens to the grid.

        Args:
            z_BTC: latent features.
            stream_after: layer, counted from 1, whose residual stream is returned as well.

        Returns:
            Grid features (B, C, H, W), channels-last, and the residual stream (B, N, D) or None.
        """
        memory_BTD = self.embed(z_BTC)
        key_BTD = memory_BTD + self.latent_token_positional_embedding.squeeze(1)
        query_pos_ND = self.positional_embedding.squeeze(1)
        # Only their positions tell the queries apart.
        x_BND = memory_BTD[:, :1].expand(-1, query_pos_ND.shape[0], -1)
        stream_BND = None
        for index in range(len(self.transformer)):
            x_BND = self.layer(index, x_BND, query_pos_ND, key_BTD, memory_BTD)
            # Before `ln_post`: the semantic head reads the raw residual stream.
            if index + 1 == stream_after:
                stream_BND = x_BND
        return self.project(self.ln_post(x_BND)), stream_BND
