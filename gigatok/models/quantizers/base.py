"""Base of quantizers: the interface to tokenizer and training, and the window of recent codes.

A quantizer makes `depth` codes of each token. The codes of an image are one sequence, token by
token, and within a token from the first code to the last: a code stands directly behind those of
the same vector that it refines, which is what tells most about it (the order of RQ-Transformer,
Lee et al. 2022). All codebooks have the same size, so one vocabulary serves every place and any
sequence of codes can be decoded; the generator's learned positions tell it which codebook a place
is of.

B batch, T tokens, D depth, S = T*D codes, M = B*T vectors, C channels of a vector.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gigatok.config import CodeShape, TokenizerArchitecture
from gigatok.config.kinds.quantizers import QUANTIZERS
from gigatok.runtime.devices import full_precision
from gigatok.runtime.distributed import gather

UNFILLED = -1.0
"""Mark in `codebook_used` of no code yet. (The authors fill with 0, which counts code 0.)"""

Losses = dict[str, Tensor]
"""Weighted terms by name, to be summed."""


class Quantized(NamedTuple):
    """Result of quantisation; `losses` is None outside training."""

    z_BTC: Tensor
    codes_BS: Tensor
    losses: Losses | None


class Quantizer(nn.Module):
    """Base of quantizers; a subclass defines `quantise`, `code` and `vectors`.

    Args:
        config: architecture of the whole tokenizer, with the quantizer's settings in it.
    """

    codebook_used: Tensor

    def __init__(self, config: TokenizerArchitecture) -> None:
        super().__init__()
        self.config = config
        self.shape: CodeShape = config.code_shape
        self.register_buffer("codebook_used", torch.full((config.usage_window,), UNFILLED))

    def quantise(self, z_MC: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """Quantise float32 vectors.

        Returns:
            Vectors (M, C) through which gradients reach `z_MC`, codes (M, D), and the loss terms,
            which are read in training only.
        """
        raise NotImplementedError

    def code(self, z_MC: Tensor) -> Tensor:
        """Find codes (M, D), int64, of float32 vectors, without losses or gradients."""
        raise NotImplementedError

    def vectors(self, codes_MD: Tensor) -> Tensor:
        """Look up the vectors (M, C) that codes stand for."""
        raise NotImplementedError

    def initialise(self, z_MC: Tensor, generator: torch.Generator | None) -> None:
        """Draw codebooks from latents, at least `rows_needed`; without codebooks, do nothing."""

    @property
    def rows_needed(self) -> int:
        """Number of latents that `initialise` takes at least."""
        return 0

    def restart(self, z_BTC: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Replace entries that the window does not hold by random latents of a batch.

        Args:
            z_BTC: latents before quantisation.
            generator: random numbers, on the CPU.

        Returns:
            Number of replaced entries, int64 and still on the device.
        """
        return torch.zeros((), dtype=torch.int64, device=z_BTC.device)

    def forward(self, z_BTC: Tensor) -> Quantized:
        """Quantise (B, T, C); always in float32, whatever autocast says."""
        with full_precision(z_BTC.device):
            q_MC, codes_MD, losses = self.quantise(z_BTC.float().flatten(0, 1))
            codes_BS = codes_MD.view(len(z_BTC), -1)
            # Evaluation needs no losses and must not move the window of used codes.
            if not self.training:
                return Quantized(q_MC.view(z_BTC.shape), codes_BS, None)
            self._record(codes_MD)
            return Quantized(q_MC.view(z_BTC.shape), codes_BS, losses)

    def nearest(self, z_BTC: Tensor) -> Tensor:
        """Find codes (B, S), int64, without losses or gradients."""
        with full_precision(z_BTC.device):
            return self.code(z_BTC.float().flatten(0, 1)).view(len(z_BTC), -1)

    def get_codebook_entry(self, codes_BS: Tensor) -> Tensor:
        """Look up the vectors of all tokens, (B, T, C)."""
        z_MC = self.vectors(codes_BS.reshape(-1, self.shape.depth))
        return z_MC.view(len(codes_BS), -1, self.shape.dim)

    @torch.no_grad()
    def _record(self, codes_MD: Tensor) -> None:
        """Append the codes of all processes to the window, first in first out."""
        window = len(self.codebook_used)
        entries = entries_of(codes_MD, self.shape).flatten()
        recent = gather(entries)[-window:].to(self.codebook_used.dtype)
        self.codebook_used.copy_(torch.cat([self.codebook_used[len(recent) :], recent]))

    def used_codes(self) -> Tensor:
        """Mark the entries of all codebooks that the window holds: bool (D*K,), on the device."""
        used = torch.zeros(
            self.shape.entries + 1, dtype=torch.bool, device=self.codebook_used.device
        )
        # Unfilled entries, -1, fall on the extra last place.
        used[self.codebook_used.long()] = True
        return used[:-1]

    def usage(self) -> float:
        """Compute the fraction of all entries that the window holds; waits for the device."""
        return float(self.used_codes().float().mean())


def build_quantizer(config: TokenizerArchitecture) -> Quantizer:
    """Build the quantizer that an architecture names."""
    kind: type[Quantizer] = resolve_name(QUANTIZERS[config.quantizer.name].module)
    return kind(config)


def entries_of(codes_ND: Tensor, shape: CodeShape) -> Tensor:
    """Number the entries of all codebooks through: those of the second follow on the first's.

    The last axis holds whole tokens: (…, D), or (…, S).
    """
    places = torch.arange(codes_ND.shape[-1], device=codes_ND.device)
    return codes_ND + places % shape.depth * shape.vocabulary


def straight_through(z_MC: Tensor, q_MC: Tensor) -> Tensor:
    """Return the value of q with the gradient of z."""
    return z_MC + (q_MC - z_MC).detach()
