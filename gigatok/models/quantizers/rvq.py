"""Residual quantization (RQ-VAE, Lee et al., arXiv 2203.01941): a sum of several codebooks' rows.

The codebook of each depth quantizes what those before have left. Codebooks learn by gradient, as
the published quantizer's does, where the paper has moving averages.

M vectors, D depth, C codebook_dim, K codebook_size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture
from gigatok.models.quantizers.base import Losses, Quantizer, straight_through
from gigatok.models.quantizers.codebooks import drawn_rows, restarted, rows_at_once
from gigatok.runtime.distributed import assign, whole


class ResidualQuantizer(Quantizer):
    """Codebooks in a row, each searched by Euclidean distance."""

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__(config)
        size, dim, depth = self.shape
        # Of unit scale for latents of unit scale, and half of it from each depth to the next.
        scale_D11 = 0.5 ** torch.arange(depth)[:, None, None]
        self.codebooks = nn.Parameter(scale_D11 * torch.randn(depth, size, dim))

    def _steps(self, z_MC: Tensor, books_DKC: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield for each depth what is left to quantize, the codes (M,), and their rows (M, C)."""
        left_MC = z_MC
        for book_KC in books_DKC:
            codes_M = nearest_points(left_MC, book_KC)
            row_MC = F.embedding(codes_M, book_KC)
            yield left_MC, codes_M, row_MC
            left_MC = left_MC - row_MC.detach()

    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """Sum the nearest rows of all depths, straight through."""
        q_MC, codes, fits, commitments = torch.zeros_like(z_MC), [], [], []
        for left_MC, codes_M, row_MC in self._steps(z_MC, self.codebooks):
            q_MC = q_MC + row_MC
            codes.append(codes_M)
            fits.append(F.mse_loss(row_MC, left_MC.detach()))
            # To the sum so far of every depth, so that each is a useful code (their equation 8).
            commitments.append(F.mse_loss(z_MC, q_MC.detach()))
        weight = self.config.commitment_weight
        # Means, where the paper sums: the weight then needs no change with the depth.
        losses = {
            "vq": torch.stack(fits).mean(),
            "commitment": weight * torch.stack(commitments).mean(),
        }
        return straight_through(z_MC, q_MC), torch.stack(codes, dim=1), losses

    def code(self, z_MC: Tensor) -> Tensor:
        """Find the nearest row of each depth, (M, D)."""
        return torch.stack([codes for _, codes, _ in self._steps(z_MC, self.codebooks)], dim=1)

    def vectors(self, codes_MD: Tensor) -> Tensor:
        """Sum the rows of all depths, (M, C)."""
        rows = [
            F.embedding(codes_M, book_KC)
            for codes_M, book_KC in zip(codes_MD.unbind(1), self.codebooks, strict=True)
        ]
        return torch.stack(rows).sum(0)

    @property
    def rows_needed(self) -> int:
        """Number of latents that `initialise` takes at least."""
        return self.shape.vocabulary

    @torch.no_grad()
    def initialise(self, z_MC: Tensor, generator: torch.Generator | None) -> None:
        """Draw each codebook from what those before leave of the latents."""
        books, left_MC = [], z_MC
        for _ in range(self.shape.depth):
            books.append(drawn_rows(left_MC, self.shape.vocabulary, generator))
            left_MC = left_MC - F.embedding(nearest_points(left_MC, books[-1]), books[-1])
        assign(self.codebooks, torch.stack(books))

    @torch.no_grad()
    def restart(self, z_BTC: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Replace rows that the window does not hold by what is left of random latents."""
        used_DK = self.used_codes().view(self.shape.depth, -1)
        books_DKC = whole(self.codebooks)
        steps = self._steps(z_BTC.float().flatten(0, 1), books_DKC)
        books = [
            restarted(book_KC, used_K, left_MC, generator)
            for book_KC, used_K, (left_MC, _, _) in zip(books_DKC, used_DK, steps, strict=True)
        ]
        assign(self.codebooks, torch.stack(books))
        return (~used_DK).sum()


@torch.no_grad()
def nearest_points(z_MC: Tensor, codebook_KC: Tensor) -> Tensor:
    """Find the row of the smallest distance."""
    # |z - e|^2 / 2 without |z|^2, which is the same for all rows.
    half_K = codebook_KC.square().sum(-1) / 2
    parts = torch.split(z_MC, rows_at_once(codebook_KC))
    return torch.cat([(half_K - part @ codebook_KC.T).argmin(-1) for part in parts])
