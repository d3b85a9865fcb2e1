"""Vector quantisation by cosine, with the rotation trick or straight-through.

It is the authors' `VectorQuantizer` (SilentView/GigaTok). Latents and codebook rows are
L2-normalised on every forward. Nothing here waits for the device: usage is counted in a buffer and
read only by `usage`.

B batch, T tokens, M = B*T vectors, C codebook_dim, K codebook_size.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.config import TokenizerArchitecture
from gigatok.runtime.distributed import batch_mean, gather

UNFILLED = -1.0
"""Mark in `codebook_used` of no code yet. (The authors fill with 0, which counts code 0.)"""


class QuantizerLosses(NamedTuple):
    """Weighted terms, to be summed; `entropy` is None where its weight is 0."""

    vq: Tensor
    commitment: Tensor
    entropy: Tensor | None

    @property
    def total(self) -> Tensor:
        """Sum of the terms."""
        total = self.vq + self.commitment
        return total if self.entropy is None else total + self.entropy


class Quantized(NamedTuple):
    """Result of quantisation; `losses` is None outside training."""

    z_BTC: Tensor
    codes_BT: Tensor
    losses: QuantizerLosses | None


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off, on devices that have it: a code must not hang on rounding."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@torch.no_grad()
def nearest_rows(z_MC: Tensor, codebook_KC: Tensor) -> Tensor:
    """Find the nearest row; both sides have unit length, so it has the largest cosine."""
    codes_M: Tensor = (z_MC @ codebook_KC.T).argmax(-1)
    return codes_M


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


def straight_through(z_MC: Tensor, q_MC: Tensor) -> Tensor:
    """Return the value of q with the gradient of z."""
    return z_MC + (q_MC - z_MC).detach()


def entropy_loss(logits_MK: Tensor) -> Tensor:
    """Compute the mean entropy of a vector's code minus the entropy of the mean distribution.

    Low when every vector is decided and all codes are used alike. The mean is over the whole
    batch, however many processes share it: the authors average over the part of each process,
    which would make the loss depend on their number. 1e-5 in the second logarithm is theirs.
    """
    log_p_MK = logits_MK.log_softmax(-1)
    p_MK = log_p_MK.exp()
    mean_p_K = batch_mean(p_MK.mean(0))
    sample_entropy = -(p_MK * log_p_MK).sum(-1).mean()
    mean_entropy = -(mean_p_K * (mean_p_K + 1e-5).log()).sum()
    return sample_entropy - mean_entropy


class VectorQuantizer(nn.Module):
    """Codebook searched by cosine, its losses, and a window of the codes used recently."""

    codebook_used: Tensor

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        with torch.no_grad():
            # As in VQGAN; after the normalisation only the directions count.
            bound = 1 / config.codebook_size
            self.embedding.weight.uniform_(-bound, bound)
            self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=-1))
        self.register_buffer("codebook_used", torch.full((config.usage_window,), UNFILLED))

    def forward(self, z_BTC: Tensor) -> Quantized:
        """Quantise; always in float32, whatever autocast says.

        The gradient estimator also runs in eval mode, as in the authors' code: the value then
        differs from the codebook row by rounding. `get_codebook_entry` returns the exact row.
        """
        with full_precision(z_BTC.device):
            z_MC = F.normalize(z_BTC.float().flatten(0, 1), dim=-1)
            codebook_KC = F.normalize(self.embedding.weight, dim=-1)
            codes_M = nearest_rows(z_MC, codebook_KC)
            q_MC = F.embedding(codes_M, codebook_KC)
            estimate = rotate_to if self.config.rotation_trick else straight_through
            losses = None
            # Evaluation needs no losses and must not move the window of used codes.
            if self.training:
                losses = self._losses(z_MC, q_MC, codebook_KC)
                self._record(codes_M)
            codes_BT = codes_M.view(z_BTC.shape[:2])
            return Quantized(estimate(z_MC, q_MC).view(z_BTC.shape), codes_BT, losses)

    def _losses(self, z_MC: Tensor, q_MC: Tensor, codebook_KC: Tensor) -> QuantizerLosses:
        config = self.config
        entropy = None
        if config.entropy_weight > 0:
            # -|z - e|^2 / t is 2 z.e / t up to a constant, which the softmax removes.
            logits_MK = z_MC @ codebook_KC.T * (2 / config.entropy_temperature)
            entropy = config.entropy_weight * entropy_loss(logits_MK)
        return QuantizerLosses(
            # Means over all M * C values of unit vectors, as in the authors' code.
            vq=F.mse_loss(q_MC, z_MC.detach()),
            commitment=config.commitment_weight * F.mse_loss(z_MC, q_MC.detach()),
            entropy=entropy,
        )

    @torch.no_grad()
    def _record(self, codes_M: Tensor) -> None:
        """Append the codes of all processes to the window, first in first out."""
        window = len(self.codebook_used)
        recent = gather(codes_M)[-window:].to(self.codebook_used.dtype)
        self.codebook_used.copy_(torch.cat([self.codebook_used[len(recent) :], recent]))

    def nearest(self, z_BTC: Tensor) -> Tensor:
        """Find codes (B, T), int64, without losses or gradients."""
        with full_precision(z_BTC.device):
            z_MC = F.normalize(z_BTC.float().flatten(0, 1), dim=-1)
            codebook_KC = F.normalize(self.embedding.weight, dim=-1)
            return nearest_rows(z_MC, codebook_KC).view(z_BTC.shape[:2])

    def get_codebook_entry(self, codes_BT: Tensor) -> Tensor:
        """Look up codebook rows of unit length, (B, T, C)."""
        return F.normalize(self.embedding(codes_BT), dim=-1)

    def used_codes(self) -> Tensor:
        """Mark the codes that the window holds: bool (K,), on the device."""
        used = torch.zeros(
            self.config.codebook_size + 1, dtype=torch.bool, device=self.codebook_used.device
        )
        # Unfilled entries, -1, fall on the extra last place.
        used[self.codebook_used.long()] = True
        return used[:-1]

    def usage(self) -> float:
        """Compute the fraction of the codebook that the window holds; waits for the device."""
        return float(self.used_codes().float().mean())
