"""Rows of learned codebooks taken from latents: at the start, and in place of unused ones.

M latents, K rows, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def drawn_rows(z_MC: Tensor, rows: int, generator: torch.Generator | None) -> Tensor:
    """Draw distinct latents, (rows, C)."""
    rows_K = torch.randperm(len(z_MC), generator=generator)[:rows].to(z_MC.device)
    return z_MC[rows_K]


def restarted(
    codebook_KC: Tensor, used_K: Tensor, z_MC: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return the codebook with random latents in place of the rows that are not used."""
    # Drawn without replacement: if two rows were equal, one would never win and stay dead.
    order_M = torch.randperm(len(z_MC), generator=generator).to(z_MC.device)
    # The i-th dead code takes the i-th drawn latent; more dead codes than latents start over.
    rank_K = (~used_K).long().cumsum(0) - 1
    rows_K = order_M[rank_K.clamp(min=0) % len(z_MC)]
    return torch.where(used_K[:, None], codebook_KC, z_MC[rows_K])
