"""GigaTok's 1D tokenizer: CNN, Q-Former, vector quantizer and back."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture, TransformerSize, finest_level
from gigatok.models.quantizers.vq import rotate_to
from gigatok.models.tokenizer.base import TokenizerOutput
from tests.benchmarks.plain.cnn import PlainDecoder, PlainEncoder


class QFormerLayer(nn.Module):
    """Pre-norm layer of DETR's decoder, sequence first."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        d = size.width
        self.self_attn = nn.MultiheadAttention(d, size.heads)
        self.multihead_attn = nn.MultiheadAttention(d, size.heads)
        self.linear1 = nn.Linear(d, 4 * d)
        self.linear2 = nn.Linear(4 * d, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.norm3 = nn.LayerNorm(d)

    def forward(self, x: Tensor, query_pos: Tensor, memory: Tensor, memory_pos: Tensor) -> Tensor:
        u = self.norm1(x)
        q = u + query_pos
        x = x + self.self_attn(q, q, u)[0]
        x = x + self.multihead_attn(self.norm2(x) + query_pos, memory + memory_pos, memory)[0]
        out: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm3(x))))
        return out


class QFormer(nn.Module):
    """Positions, layers and the last norm."""

    def __init__(self, size: TransformerSize, tokens: int, grid: int) -> None:
        super().__init__()
        self.tokens, self.grid = tokens, grid
        self.positional_embedding = nn.Parameter(torch.zeros(grid**2, 1, size.width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(tokens, 1, size.width))
        self.transformer = nn.ModuleList(QFormerLayer(size) for _ in range(size.layers))
        self.ln_post = nn.LayerNorm(size.width)


class PlainQFormerEncoder(QFormer):
    """Grid (B, C, H, W) to tokens (T, B, C)."""

    def __init__(self, config: TokenizerArchitecture, grid: int) -> None:
        super().__init__(config.encoder, config.num_latent_tokens, grid)
        z, d = config.cnn.z_channels, config.encoder.width
        self.ln_pre = nn.LayerNorm(z)
        self.encoder_embed = nn.Linear(z, d)
        self.global_proj = nn.Linear(d, d)
        self.conv_out = nn.Conv2d(d, z, 1)

    def forward(self, spatial: Tensor) -> Tensor:
        memory = self.encoder_embed(self.ln_pre(spatial.flatten(2).permute(2, 0, 1)))
        x = self.global_proj(self._pooled(memory))
        positions = self.latent_token_positional_embedding, self.positional_embedding
        for layer in self.transformer:
            x = layer(x, positions[0], memory, positions[1])
        x = self.ln_post(x).permute(1, 2, 0).unsqueeze(-1)
        return self.conv_out(x).squeeze(-1).permute(2, 0, 1)

    def _pooled(self, memory: Tensor) -> Tensor:
        """Average the grid from coarse to fine: the mean twice, then halves, quarters, ..."""
        grid = memory.permute(1, 2, 0).unflatten(2, (self.grid, self.grid))
        rows, columns = finest_level(self.tokens)
        groups = []
        while True:
            groups.append(F.adaptive_avg_pool2d(grid, (rows, columns)).flatten(2))
            if rows * columns == 1:
                break
            rows, columns = (rows, columns // 2) if columns > rows else (rows // 2, columns)
        return torch.cat([groups[-1], *reversed(groups)], dim=2).permute(2, 0, 1)


class PlainQFormerDecoder(QFormer):
    """Tokens (T, B, C) to a grid (B, C, H, W), and the stream (B, N, D) of a layer."""

    def __init__(self, config: TokenizerArchitecture, grid: int, teacher_dim: int) -> None:
        super().__init__(config.decoder, config.num_latent_tokens, grid)
        z, d = config.cnn.z_channels, config.decoder.width
        self.stream_after = config.semantic_layer
        self.ln_pre = nn.LayerNorm(z)
        self.decoder_embed = nn.Linear(z, d)
        self.conv_out = nn.Conv2d(d, z, 3, padding=1)
        widths = [d, 4 * d, 4 * d, teacher_dim]
        layers = [part for i, o in pairwise(widths) for part in (nn.Linear(i, o), nn.SiLU())]
        self.distill_mlp = nn.Sequential(*layers[:-1])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.decoder_embed(self.ln_pre(z))
        x = memory[:1].expand(self.grid**2, -1, -1)
        positions = self.positional_embedding, self.latent_token_positional_embedding
        for number, layer in enumerate(self.transformer, start=1):
            x = layer(x, positions[0], memory, positions[1])
            if number == self.stream_after:
                stream = x
        grid = self.ln_post(x).permute(1, 2, 0).unflatten(2, (self.grid, self.grid))
        return self.conv_out(grid), self.distill_mlp(stream).transpose(0, 1)


class PlainQuantizer(nn.Module):
    """Nearest row by cosine, with the rotation trick."""

    codebook_used: Tensor

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        self.register_buffer("codebook_used", torch.zeros(config.usage_window))
        self.commitment_weight = config.commitment_weight

    def codebook(self) -> Tensor:
        return F.normalize(self.embedding.weight, dim=-1)

    def forward(self, z_MC: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        z_MC, codebook_KC = F.normalize(z_MC, dim=-1), self.codebook()
        distances_MK = (
            z_MC.square().sum(1, keepdim=True)
            + codebook_KC.square().sum(1)
            - 2 * z_MC @ codebook_KC.T
        )
        codes_M = distances_MK.argmin(1)
        q_MC = codebook_KC[codes_M]
        losses = {
            "vq": F.mse_loss(q_MC, z_MC.detach()),
            "commitment": self.commitment_weight * F.mse_loss(z_MC, q_MC.detach()),
        }
        return rotate_to(z_MC, q_MC), codes_M, losses


class PlainTokenizer(nn.Module):
    """Tokenizer whose parameters have the names of the published checkpoints."""

    def __init__(self, config: TokenizerArchitecture, image_size: int, teacher_dim: int) -> None:
        super().__init__()
        grid = image_size // config.cnn.downsampling
        z, dim = config.cnn.z_channels, config.code_shape.dim
        self.encoder = PlainEncoder(config.cnn)
        self.s2to1encoder = PlainQFormerEncoder(config, grid)
        self.s1to2decoder = PlainQFormerDecoder(config, grid, teacher_dim)
        self.decoder = PlainDecoder(config.cnn)
        self.quant_conv = nn.Conv2d(z, dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, z, 1)
        self.quantize = PlainQuantizer(config)

    def _latents(self, image: Tensor) -> Tensor:
        """Return latents (T, B, c)."""
        tokens = self.s2to1encoder(self.encoder(image)).permute(1, 2, 0).unsqueeze(-1)
        return self.quant_conv(tokens).squeeze(-1).permute(2, 0, 1)

    def _grid(self, z: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.post_quant_conv(z.permute(1, 2, 0).unsqueeze(-1)).squeeze(-1)
        grid, semantic = self.s1to2decoder(tokens.permute(2, 0, 1))
        return grid, semantic

    def encode(self, image: Tensor) -> Tensor:
        """Encode images to codes (B, T)."""
        z = self._latents(image)
        return self.quantize(z.flatten(0, 1))[1].view(z.shape[:2]).T

    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (B, T) to images."""
        image: Tensor = self.decoder(self._grid(self.quantize.codebook()[codes.T])[0])
        return image

    def forward(self, image: Tensor) -> TokenizerOutput:
        z = self._latents(image)
        q, codes, losses = self.quantize(z.flatten(0, 1))
        grid, semantic = self._grid(q.view(z.shape))
        codes_BT = codes.view(z.shape[:2]).T
        return TokenizerOutput(self.decoder(grid), codes_BT, losses, semantic)
