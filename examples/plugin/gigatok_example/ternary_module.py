"""The quantizer itself. M vectors of C channels; D codes per vector, here one."""

import torch
from torch import Tensor

from gigatok.config import TokenizerArchitecture
from gigatok.models.quantizers.base import Losses, Quantizer, straight_through


class TernaryQuantizer(Quantizer):
    """Rounding of channels that a tanh keeps between -1 and 1."""

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__(config)
        self.places = tuple(3**i for i in range(self.shape.dim))  # of a number to the base 3

    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """Return vectors through which gradients pass, their codes, and loss terms (none)."""
        bounded_MC = torch.tanh(z_MC)
        return straight_through(bounded_MC, bounded_MC.round()), self.code(z_MC), {}

    @torch.no_grad()
    def code(self, z_MC: Tensor) -> Tensor:
        """Number the signs of the channels: (M, 1)."""
        digits_MC = torch.tanh(z_MC).round().long() + 1
        return (digits_MC * torch.tensor(self.places, device=z_MC.device)).sum(-1, keepdim=True)

    def vectors(self, codes_MD: Tensor) -> Tensor:
        """Take codes apart again: (M, C)."""
        channels = [codes_MD[:, 0] // place % 3 - 1 for place in self.places]
        return torch.stack(channels, dim=-1).float()
