"""Finite scalar quantization (Mentzer et al., arXiv 2309.15505): round each channel, no codebook.

M vectors, C channels.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.quantizers import FiniteScalarConfig
from gigatok.models.quantizers.base import Losses, Quantizer, straight_through

# `eps` of the paper's listing (Appendix A.1): a saturated tanh must not round to one level more.
MARGIN = 1e-3


class FiniteScalarQuantizer(Quantizer):
    """Rounding of bounded channels; it has neither parameters nor losses."""

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__(config)
        assert isinstance(config.quantizer, FiniteScalarConfig)
        # Plain numbers and no buffers, which would have no values on the meta device.
        self.levels = config.quantizer.levels
        # Place values of a number whose digit i has `levels[i]` values, the first the lowest.
        self.basis = tuple(accumulate(self.levels[:-1], mul, initial=1))

    def bound(self, z_MC: Tensor) -> Tensor:
        """Squash each channel between its lowest and highest level: integers around 0."""
        channels = zip(z_MC.unbind(-1), self.levels, strict=True)
        return torch.stack([bound(z_M, levels) for z_M, levels in channels], dim=-1)

    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """Round to the nearest level; gradients pass the rounding unchanged, but not the bound."""
        bounded_MC = self.bound(z_MC)
        q_MC = straight_through(bounded_MC, bounded_MC.round())
        # Divided by half of the levels, so that vectors lie in [-1, 1].
        scaled = [q_M / (n // 2) for q_M, n in zip(q_MC.unbind(-1), self.levels, strict=True)]
        return torch.stack(scaled, dim=-1), self._number(bounded_MC), {}

    def code(self, z_MC: Tensor) -> Tensor:
        """Number the levels of the channels as one code, (M, 1)."""
        return self._number(self.bound(z_MC))

    @torch.no_grad()
    def _number(self, bounded_MC: Tensor) -> Tensor:
        channels = zip(bounded_MC.round().long().unbind(-1), self.levels, self.basis, strict=True)
        digits = [(level_M + n // 2) * place for level_M, n, place in channels]
        return torch.stack(digits, dim=-1).sum(-1, keepdim=True)

    def vectors(self, codes_MD: Tensor) -> Tensor:
        """Take a code apart into levels, scaled to [-1, 1]: (M, C)."""
        codes_M = codes_MD.squeeze(-1)
        digits = (
            (codes_M // place % n - n // 2) / (n // 2)
            for n, place in zip(self.levels, self.basis, strict=True)
        )
        return torch.stack(list(digits), dim=-1)


def bound(z_M: Tensor, levels: int) -> Tensor:
    """Squash values between the lowest and the highest of so many levels.

    Of an even number, half a step is taken off: else one of the two outermost levels would lie
    beyond the bound. The shift inside the tanh keeps 0 near 0; that it is a tangent and no
    inverse tanh is the paper's.
    """
    half = (levels - 1) * (1 - MARGIN) / 2
    offset = 0.0 if levels % 2 else 0.5
    return torch.tanh(z_M + math.tan(offset / half)) * half - offset
