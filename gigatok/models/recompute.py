"""Activation checkpointing of one layer, the same way in every transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *inputs: object, recompute: bool) -> Tensor:
    """Apply a layer; with `recompute` only its inputs are kept for the backward pass."""
    # Without gradients nothing is kept anyway.
    if recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
    else:
        out = layer(*inputs)
    return out
