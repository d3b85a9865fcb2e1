"""Rows of learned codebooks: how many are compared at once, and how they are taken from latents.

M latents, K rows, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_MATRIX = 2**27
"""Most distances between latents and rows that are in memory at once: 512 MiB.

Those of 128 images of 256 tokens to 16,384 rows are 2 GiB.
"""


def rows_at_once(codebook_KC: Tensor) -> int:
    """Count the latents whose distances to all rows are computed together."""
    return max(1, LARGEST_MATRIX // len(codebook_KC))


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
