"""Losses between pixels."""

from __future__ import annotations

from torch import Tensor, nn

from gigatok.config.kinds.losses import AbsoluteErrorConfig
from gigatok.models.tokenizer.base import TokenizerOutput


class AbsoluteError(nn.Module):
    """Mean absolute error, with a rounded tip on request (Charbonnier loss, arXiv 1710.01992)."""

    def __init__(self, config: AbsoluteErrorConfig) -> None:
        super().__init__()
        self.epsilon = config.epsilon

    def forward(self, output: TokenizerOutput, image_BCHW: Tensor, step: int) -> Tensor:
        """Average over all values of all images."""
        error_BCHW = output.reconstruction_BCHW - image_BCHW
        if self.epsilon == 0:
            return error_BCHW.abs().mean()
        return (error_BCHW.square() + self.epsilon**2).sqrt().mean()
