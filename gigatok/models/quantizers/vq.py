"""Vector quantisation by cosine, with the rotation trick or straight-through.

It is the authors' `VectorQuantizer` (SilentView/GigaTok). Latents and codebook rows are
L2-normalised on every forward. Nothing here waits for the device.

M vectors, C codebook_dim, K codebook_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gigatok.config import TokenizerArchitecture
from gigatok.models.quantizers.base import Losses, Quantizer, straight_through
from gigatok.models.quantizers.codebooks import drawn_rows, restarted, rows_at_once
from gigatok.runtime.distributed import assign, batch_mean, whole


class VectorQuantizer(Quantizer):
    """Codebook searched by cosine.

    The gradient estimator also runs in eval mode, as in the authors' code: the value then differs
    from the codebook row by rounding. `get_codebook_entry` returns the exact row.
    """

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        with torch.no_grad():
            # As in VQGAN; after the normalisation only the directions count.
            bound = 1 / config.codebook_size
            self.embedding.weight.uniform_(-bound, bound)
            self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=-1))

    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """Replace each vector by the row of the largest cosine."""
        z_MC = F.normalize(z_MC, dim=-1)
        codebook_KC = F.normalize(self.embedding.weight, dim=-1)
        codes_M = nearest_rows(z_MC, codebook_KC)
        q_MC = F.embedding(codes_M, codebook_KC)
        estimate = rotate_to if self.config.rotation_trick else straight_through
        losses = self._losses(z_MC, q_MC, codebook_KC) if self.training else {}
        return estimate(z_MC, q_MC), codes_M[:, None], losses

    def _losses(self, z_MC: Tensor, q_MC: Tensor, codebook_KC: Tensor) -> Losses:
        config, entropy = self.config, {}
        # Computed first, though summed last: the order of the backward pass follows, and with it
        # the last bit of gradients.
        if config.entropy_weight > 0:
            loss = entropy_loss(z_MC, codebook_KC, config.entropy_temperature)
            entropy = {"entropy": config.entropy_weight * loss}
        return {
            # Means over all M * C values of unit vectors, as in the authors' code.
            "vq": F.mse_loss(q_MC, z_MC.detach()),
            "commitment": config.commitment_weight * F.mse_loss(z_MC, q_MC.detach()),
            **entropy,
        }

    def code(self, z_MC: Tensor) -> Tensor:
        """Find the row of the largest cosine, (M, 1)."""
        codebook_KC = F.normalize(self.embedding.weight, dim=-1)
        return nearest_rows(F.normalize(z_MC, dim=-1), codebook_KC)[:, None]

    def vectors(self, codes_MD: Tensor) -> Tensor:
        """Look up codebook rows of unit length, (M, C)."""
        return F.normalize(self.embedding(codes_MD.squeeze(-1)), dim=-1)

    @property
    def rows_needed(self) -> int:
        """Number of latents that `initialise` takes at least."""
        return self.config.codebook_size

    def initialise(self, z_MC: Tensor, generator: torch.Generator | None) -> None:
        """Draw the codebook from latents."""
        weight = self.embedding.weight
        assign(weight, F.normalize(drawn_rows(z_MC, len(weight), generator), dim=-1))

    @torch.no_grad()
    def restart(self, z_BTC: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Replace rows that the window does not hold by directions of random latents."""
        z_MC = F.normalize(z_BTC.float().flatten(0, 1), dim=-1)
        used_K, weight = self.used_codes(), self.embedding.weight
        assign(weight, restarted(whole(weight), used_K, z_MC, generator))
        return (~used_K).sum()


@torch.no_grad()
def nearest_rows(z_MC: Tensor, codebook_KC: Tensor) -> Tensor:
    """Find the nearest row; both sides have unit length, so it has the largest cosine."""
    parts = torch.split(z_MC, rows_at_once(codebook_KC))
    return torch.cat([(part @ codebook_KC.T).argmax(-1) for part in parts])


def rotate_to(z_MC: Tensor, q_MC: Tensor) -> Tensor:
    """Rotate and scale z onto q, treating rotation and scale as constants (rotation trick).

    The value is q up to rounding; the gradient to z keeps the angle between the two
    (Fifty et al., 2024). No gradient reaches q.
    """
    with torch.no_grad():
        # The epsilons of 1e-6 are the authors'.
        z_norm = z_MC.norm(dim=-1, keepdim=True) + 1e-6
        q_norm = q_MC.norm(dim=-1, keepdim=True)
        u = z_MC / z_norm
        q = q_MC / (q_norm + 1e-6)
        w = F.normalize(u + q, dim=-1)
        scale = q_norm / z_norm
    along_w = (z_MC * w).sum(-1, keepdim=True)
    along_u = (z_MC * u).sum(-1, keepdim=True)
    rotated: Tensor = (z_MC - 2 * along_w * w + 2 * along_u * q) * scale
    return rotated


def entropy_loss(z_MC: Tensor, codebook_KC: Tensor, temperature: float) -> Tensor:
    """Compute the mean entropy of a vector's code minus the entropy of the mean distribution.

    The code is drawn by the softmax of -|z - e|^2 / temperature over the rows e. Low when every
    vector is decided and all codes are used alike. The mean is over the whole batch, however many
    processes share it: the authors average over the part of each process, which would make the
    loss depend on their number. 1e-5 in the second logarithm is theirs.
    """
    parts = torch.split(z_MC, rows_at_once(codebook_KC))
    # Matrices of the only part are kept for the backward pass; those of several are made again.
    sums = [
        _entropy_sums(part, codebook_KC, temperature)
        if len(parts) == 1
        else checkpoint(_entropy_sums, part, codebook_KC, temperature, use_reentrant=False)
        for part in parts
    ]
    entropies, distributions = zip(*sums, strict=True)
    sample_entropy = torch.stack(entropies).sum() / len(z_MC)
    mean_p_K = batch_mean(torch.stack(distributions).sum(0) / len(z_MC))
    mean_entropy = -(mean_p_K * (mean_p_K + 1e-5).log()).sum()
    return sample_entropy - mean_entropy


def _entropy_sums(z_MC: Tensor, codebook_KC: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sum over vectors the entropies of their codes, and the distributions (K,)."""
    # -|z - e|^2 / t is 2 z.e / t up to a constant, which the softmax removes.
    log_p_MK = (z_MC @ codebook_KC.T * (2 / temperature)).log_softmax(-1)
    p_MK = log_p_MK.exp()
    return -(p_MK * log_p_MK).sum(-1).sum(), p_MK.sum(0)
