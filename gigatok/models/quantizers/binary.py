"""Quantizers whose code is the signs of the channels: lookup-free and binary spherical.

The codes are the corners of a cube around the latents, so that the nearest one needs no search.

M vectors, C channels = bits of a code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.quantizers import BinaryConfig
from gigatok.models.quantizers.base import Losses, Quantizer, straight_through
from gigatok.runtime.distributed import batch_mean


class BinaryQuantizer(Quantizer):
    """Base of both: corners at `corner` in each channel, and the losses."""

    corner: float

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__(config)
        assert isinstance(config.quantizer, BinaryConfig)
        self.settings = config.quantizer

    def place(self, z_MC: Tensor) -> Tensor:
        """Move latents to where the corners lie."""
        return z_MC

    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """Take the nearest corner, straight through."""
        z_MC = self.place(z_MC)
        codes_MD = self._number(z_MC)
        q_MC = self.vectors(codes_MD)
        losses = self._losses(z_MC, q_MC) if self.training else {}
        return straight_through(z_MC, q_MC), codes_MD, losses

    def _losses(self, z_MC: Tensor, q_MC: Tensor) -> Losses:
        weights = self.settings
        losses = {"commitment": weights.commitment_weight * F.mse_loss(z_MC, q_MC)}
        if weights.entropy_weight > 0:
            # Of the softmax of -|z - c|^2 / t over corners, which is a product over channels: the
            # two corners of a channel differ by 4 z c / t.
            logits_MC = z_MC * (4 * self.corner / weights.entropy_temperature)
            losses["entropy"] = weights.entropy_weight * bitwise_entropy_loss(logits_MC)
        return losses

    def code(self, z_MC: Tensor) -> Tensor:
        """Read the signs as the bits of a number, (M, 1)."""
        # A vector of unit length has the signs of the vector.
        return self._number(z_MC)

    def _number(self, z_MC: Tensor) -> Tensor:
        # 0 counts as negative, as in the paper on lookup-free quantization.
        return ((z_MC > 0) * self._places(z_MC)).sum(-1, keepdim=True)

    def _places(self, like: Tensor) -> Tensor:
        # The first channel is the lowest bit. No buffer: it would have no values on the meta
        # device.
        return 2 ** torch.arange(self.settings.bits, device=like.device)

    def vectors(self, codes_MD: Tensor) -> Tensor:
        """Place the corners of codes, (M, C)."""
        bits_MC = codes_MD // self._places(codes_MD) % 2
        return (2 * bits_MC - 1) * self.corner


class LookupFreeQuantizer(BinaryQuantizer):
    """Signs of the channels, corners at -1 and 1 (Yu et al., arXiv 2310.05737)."""

    corner = 1.0


class BinarySphericalQuantizer(BinaryQuantizer):
    """Signs of a vector of unit length, corners on its sphere (Zhao et al., arXiv 2406.07548).

    So the error is bounded, which that of `LookupFreeQuantizer` is not.
    """

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__(config)
        self.corner = self.settings.bits**-0.5

    def place(self, z_MC: Tensor) -> Tensor:
        """Scale latents to unit length."""
        return F.normalize(z_MC, dim=-1)


def bitwise_entropy_loss(logits_MC: Tensor) -> Tensor:
    """Compute the mean entropy of a vector's code minus the entropy of the mean distribution.

    Bits of one vector are independent, so the first entropy is exactly the sum over bits. The
    second would need a distribution over all codes; it is taken as the sum over bits too, which
    is an upper bound (as arXiv 2406.07548 has it): bits are drawn to be even, not independent.
    The mean is over the whole batch, however many processes share it.

    Args:
        logits_MC: logarithm of the odds that a bit is set.
    """
    p_MC = logits_MC.sigmoid()
    # Of a bit: log(1 + exp(l)) - p l, which needs no logarithm of a vanishing p.
    sample_entropy = (F.softplus(logits_MC) - p_MC * logits_MC).sum(-1).mean()
    mean_p_C = batch_mean(p_MC.mean(0))
    # 1e-5 as in the loss of the published quantizer.
    mean_entropy = -sum((q_C * (q_C + 1e-5).log()).sum() for q_C in (mean_p_C, 1 - mean_p_C))
    return sample_entropy - mean_entropy
