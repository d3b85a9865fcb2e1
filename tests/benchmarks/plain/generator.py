"""LlamaGen with learned positions, and drawing of codes with a key and value cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import GeneratorArchitecture
from gigatok.models.generator.layout import ffn_width


class Attention(nn.Module):
    """Causal attention; while codes are drawn, over a cache of the whole sequence and a mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.keys_BHTd: Tensor | None = None
        self.values_BHTd: Tensor | None = None

    def forward(self, x_BTD: Tensor, mask_TT: Tensor, position: int | None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.wqkv(x_BTD).chunk(3, dim=-1)
        )
        if position is not None:
            assert self.keys_BHTd is not None
            assert self.values_BHTd is not None
            self.keys_BHTd[:, :, position : position + 1] = k
            self.values_BHTd[:, :, position : position + 1] = v
            k, v = self.keys_BHTd, self.values_BHTd
        out_BHTd = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TT)
        out: Tensor = self.wo(out_BHTd.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.w2(F.silu(self.w1(x_BTD)) * self.w3(x_BTD))
        return out


class RMSNorm(nn.Module):
    """Division by the root of the mean square, times a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * torch.rsqrt(x_BTD.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class Block(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width, hidden)
        self.attention_norm = RMSNorm(width)
        self.ffn_norm = RMSNorm(width)

    def forward(self, x_BTD: Tensor, mask_TT: Tensor, position: int | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), mask_TT, position)
        out: Tensor = x_BTD + self.feed_forward(self.ffn_norm(x_BTD))
        return out


class PlainGenerator(nn.Module):
    """Transformer over codes, whose parameters have the names of the published checkpoints."""

    def __init__(
        self, config: GeneratorArchitecture, codebook_size: int, num_classes: int, num_tokens: int
    ) -> None:
        super().__init__()
        width, heads = config.size.width, config.size.heads
        hidden = ffn_width(width, config.ffn_multiple_of)
        self.null_class, self.num_tokens = num_classes, num_tokens
        self.cls_embedding = nn.ModuleDict(
            {"embedding_table": nn.Embedding(num_classes + 1, width)}
        )
        self.tok_embeddings = nn.Embedding(codebook_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(num_tokens + 1, width))
        blocks = [Block(width, heads, hidden) for _ in range(config.size.layers)]
        self.layers = nn.ModuleList(blocks)
        self.norm = RMSNorm(width)
        self.output = nn.Linear(width, codebook_size, bias=False)

    def forward(self, codes_BT: Tensor, classes_B: Tensor) -> Tensor:
        class_B1D = self.cls_embedding["embedding_table"](classes_B).unsqueeze(1)
        x_BTD = torch.cat([class_B1D, self.tok_embeddings(codes_BT[:, :-1])], dim=1)
        return self._run(x_BTD, torch.arange(x_BTD.shape[1]), position=None)

    def _run(self, x_BTD: Tensor, places_T: Tensor, position: int | None) -> Tensor:
        x_BTD = x_BTD + self.positional_embedding[places_T]
        # Each place sees itself and those before it.
        mask_TT = torch.arange(self.num_tokens) <= places_T[:, None]
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_TT, position)
        logits_BTV: Tensor = self.output(self.norm(x_BTD))
        return logits_BTV

    @torch.inference_mode()
    def generate(self, classes_B: Tensor, cfg_scale: float) -> Tensor:
        """Draw the likeliest code again and again: (B, T)."""
        batch, guided = len(classes_B), cfg_scale > 1
        if guided:
            classes_B = torch.cat([classes_B, torch.full_like(classes_B, self.null_class)])
        self._allocate(len(classes_B))
        x_B1D = self.cls_embedding["embedding_table"](classes_B).unsqueeze(1)
        codes: list[Tensor] = []
        for position in range(self.num_tokens):
            logits_BV = self._run(x_B1D, torch.tensor([position]), position)[:, -1]
            if guided:
                with_BV, without_BV = logits_BV.split(batch)
                logits_BV = without_BV + cfg_scale * (with_BV - without_BV)
            codes.append(logits_BV.argmax(-1))
            x_B1D = self.tok_embeddings(codes[-1].repeat(2 if guided else 1)).unsqueeze(1)
        return torch.stack(codes, dim=1)

    def _allocate(self, batch: int) -> None:
        width = self.tok_embeddings.embedding_dim
        for block in self.layers:
            heads = block.attention.heads
            shape = (batch, heads, self.num_tokens, width // heads)
            block.attention.keys_BHTd = torch.zeros(shape)
            block.attention.values_BHTd = torch.zeros(shape)
