"""ViT-S/16 of DINO (Caron et al. 2021), the frozen eye of the DINO discriminator.

The weights are those of the published file. The network is that of GigaTok's authors, who
approximate GELU by tanh where DINO itself was trained with the exact one.

Modules and parameters are named as in the published file. B batch, N patches, T = 1 + N tokens
(class first), D width, H heads, d head width.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.files.foreign_weights import compare
from gigatok.files.stored_weights import read_weights
from gigatok.models.judges.layout import DINO

WIDTH = DINO.width
NORM_EPS = 1e-6  # of DINO's ViT; torch's default is 1e-5
VARIABLE = "GIGATOK_DINO"
"""Environment variable that names the user's copy of the weights."""
FILE = "dino_deitsmall16_pretrain.pth"


class DINOAttention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend: (B, T, D) -> (B, T, D)."""
        # (B, T, D) -> (B, H, T, d) each.
        q, k, v = (
            part.unflatten(-1, (DINO.heads, -1)).transpose(1, 2)
            for part in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        x_BHTd = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(x_BHTd.transpose(1, 2).flatten(2))
        return out


class DINOMLP(nn.Module):
    """MLP of four times the width, with the tanh form of GELU.

    With exact GELU the gradient that reaches a 256-pixel image is 2.1 % off the authors'.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply to each token: (B, T, D) -> (B, T, D)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x_BTD), approximate="tanh"))
        return out


class DINOBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, NORM_EPS)
        self.attn = DINOAttention()
        self.norm2 = nn.LayerNorm(WIDTH, NORM_EPS)
        self.mlp = DINOMLP()

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Update the stream, (B, T, D)."""
        x = x_BTD + self.attn(self.norm1(x_BTD))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbedding(nn.Module):
    """Projection of patches to tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, DINO.patch, DINO.patch)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Embed patches: (B, 3, H, W) -> (B, N, D), row-major."""
        patches: Tensor = self.proj(image_BCHW).flatten(2).transpose(1, 2)
        return patches


class DINOSmall(nn.Module):
    """Backbone without a head; at 224 pixels it has 196 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, DINO.tokens, WIDTH))
        self.patch_embed = PatchEmbedding()
        self.blocks = nn.ModuleList(DINOBlock() for _ in range(DINO.layers))
        self.norm = nn.LayerNorm(WIDTH, NORM_EPS)

    def streams(self, image_BCHW: Tensor, after: tuple[int, ...]) -> list[Tensor]:
        """Compute the token streams before the first block and after some blocks, counted from 0.

        Args:
            image_BCHW: normalised images, 224 pixels.
            after: rising indices of blocks; those beyond the last are not run.

        Returns:
            (B, T, D) each, not normalised.
        """
        x_BND = self.patch_embed(image_BCHW)
        # (B, 196, D) -> (B, 197, D), class first.
        x_BTD = torch.cat([self.cls_token.expand(len(x_BND), -1, -1), x_BND], 1) + self.pos_embed
        streams = [x_BTD]
        for index, block in enumerate(self.blocks[: after[-1] + 1]):
            x_BTD = block(x_BTD)
            if index in after:
                streams.append(x_BTD)
        return streams


def load_dino() -> DINOSmall:
    """Load the backbone, frozen, from the file that `$GIGATOK_DINO` names.

    Raises:
        ValueError: no such file, or it holds other weights.
    """
    where = f"set {VARIABLE} to {FILE} of https://github.com/facebookresearch/dino"
    given = os.environ.get(VARIABLE)
    if given is None:
        raise ValueError(f"tokenizer.discriminator dino needs DINO ViT-S/16: {where}")
    path = Path(given).expanduser()
    if not path.is_file():
        raise ValueError(f"{VARIABLE} is {given}, which is no file; {where}")
    backbone = DINOSmall()
    try:
        weights = read_weights(path, ("state_dict",)).tensors
        misfits = compare(backbone.state_dict(), weights, ignored=())
        if not misfits.fits:
            raise ValueError("; ".join(misfits.lines()))
    except ValueError as error:
        raise ValueError(f"{path} does not hold DINO ViT-S/16: {error}\n{where}") from error
    backbone.load_state_dict(weights)
    _zero_key_biases(backbone)
    return backbone.eval().requires_grad_(False)


@torch.no_grad()
def _zero_key_biases(backbone: DINOSmall) -> None:
    """Zero the keys' biases, as the authors do.

    A key's bias shifts all scores of a query alike, so nothing changes but rounding.
    """
    for block in backbone.blocks:
        assert isinstance(block, DINOBlock)
        # Rows of `qkv`: queries, keys, values.
        block.attn.qkv.bias[WIDTH : 2 * WIDTH] = 0
