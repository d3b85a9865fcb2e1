"""Linear layers with weights laid out for a matrix product of few rows, as drawing codes needs.

On a CPU, a product of a few rows with a large matrix waits for the matrix. oneDNN reads one that
lies in its own blocks about twice as fast as one that lies row by row, and bfloat16 in half the
time again.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class PackedLinear(nn.Module):
    """Linear layer of frozen, packed weights; without gradients."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        # A plain attribute: a packed tensor has no strides, so it is in no state dict.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self._bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) -> (..., out)."""
        fused: tuple[str, list[Any], str] = ("none", [], "")  # no activation in the same kernel
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, *fused)
        return out


def packed(model: Model, rows: int) -> Model:
    """Return a view of a model for inference whose linear layers are packed.

    Everything else is the model's own, not a copy. Where packing does not help, on a GPU or
    without oneDNN, all of it is.

    Args:
        model: not changed; later changes of its linear weights do not reach the view.
        rows: number of vectors that a layer multiplies at once.
    """
    if isinstance(model, nn.Linear):
        return PackedLinear(model, rows) if _packs(model.weight) else model  # type: ignore[return-value]
    view = copy.copy(model)
    view._modules = {name: child and packed(child, rows) for name, child in model._modules.items()}
    return view


def _packs(weight: Tensor) -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weight.device.type != "cpu" or not available:
        return False
    half = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return half or weight.dtype == torch.float32
