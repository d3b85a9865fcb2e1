"""Scores of a tokenizer that need no images, trained or adopted: its parameters by part."""

from __future__ import annotations

from gigatok.config import TokenizerArchitecture
from gigatok.models.tokenizer.layout import tokenizer_parameters
from gigatok.runtime.context import Scores


def parameter_scores(
    tokenizer: TokenizerArchitecture, image_size: int, teacher_dim: int, protocol: str
) -> Scores:
    """Count the parameters of a tokenizer, trained or adopted; `protocol` says what counts."""
    count = tokenizer_parameters(tokenizer, image_size, teacher_dim)
    return Scores(
        {
            "params_total": count.total,
            "params_encoder": count.encoder,
            "params_decoder": count.decoder,
            "params_head": count.head,
        },
        {"params_total": protocol},
    )
