"""Small quantizers for tests."""

from __future__ import annotations

from typing import Any

import torch

from gigatok.config import TokenizerArchitecture, TransformerSize
from gigatok.models.quantizers.base import Quantizer, build_quantizer

SIZE = TransformerSize(width=8, layers=1, heads=1)


def build(quantizer: dict[str, Any], **changes: Any) -> Quantizer:
    """Build a quantizer from its settings, always with the same weights."""
    torch.manual_seed(0)
    values = {"encoder": SIZE, "decoder": SIZE, "semantic_weight": 0, "usage_window": 256}
    return build_quantizer(
        TokenizerArchitecture.model_validate({**values, **changes, "quantizer": quantizer})
    )
