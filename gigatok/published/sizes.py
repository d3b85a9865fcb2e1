"""Published sizes of transformers: GigaTok, Table 1; generators as in LlamaGen. No torch."""

from __future__ import annotations

from gigatok.config import TransformerSize


def _table(rows: dict[str, tuple[int, int, int]]) -> dict[str, TransformerSize]:
    return {
        name: TransformerSize(name=name, width=width, layers=layers, heads=heads)
        for name, (width, layers, heads) in rows.items()
    }


TOKENIZER_SIZES = _table(
    {
        # Width, layers, heads; all heads are 64 wide.
        "T": (256, 4, 4),
        "S": (512, 6, 8),
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "XL": (1280, 36, 20),
        "XXL": (1536, 48, 24),
        "XXXL": (2560, 48, 40),
    }
)
"""Transformers of tokenizers, encoder and decoder alike; T is the reference's "tiny"."""

GENERATOR_SIZES = _table(
    {
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "XL": (1280, 36, 20),
        "XXL": (1536, 48, 24),
        "XXXL": (2560, 48, 40),
    }
)
"""Generators GPT-B to GPT-XXXL."""
