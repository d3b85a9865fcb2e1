"""Losses between spectra. B batch, H W image, u v frequencies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gigatok.config.kinds.losses import FocalFrequencyConfig
from gigatok.models.tokenizer.base import TokenizerOutput


class FocalFrequency(nn.Module):
    """Focal frequency loss (Jiang et al. 2021, arXiv 2012.12821).

    The squared distance of two spectra, each frequency weighted by its own distance to the power
    of `alpha`, so that training turns to frequencies that are hard to reconstruct. Weights are
    constants of the step, at most 1 in each spectrum (equations 8 and 9).
    """

    def __init__(self, config: FocalFrequencyConfig) -> None:
        super().__init__()
        self.alpha = config.alpha

    def forward(self, output: TokenizerOutput, image_BCHW: Tensor, step: int) -> Tensor:
        """Average over all frequencies of all channels and images."""
        # Orthonormal: with equal weights it is then the mean squared error of the pixels.
        gap_BCuv = torch.fft.fft2(output.reconstruction_BCHW - image_BCHW, norm="ortho")
        squared = gap_BCuv.real.square() + gap_BCuv.imag.square()
        weight = squared.detach().sqrt() ** self.alpha
        largest = weight.amax((-2, -1), keepdim=True)
        # Equal spectra have no largest distance.
        tiny = torch.finfo(weight.dtype).tiny
        loss: Tensor = (weight / largest.clamp(min=tiny) * squared).mean()
        return loss
