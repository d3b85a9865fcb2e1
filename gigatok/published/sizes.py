"""Published sizes of transformers: GigaTok, Table 1; generators as in LlamaGen. No torch."""

from __future__ import annotations

from gigatok.config import TransformerSize

_SHAPES = {
    # Width, layers, heads; all heads are 64 wide.
    "T": (256, 4, 4),
    "S": (512, 6, 8),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
    "XXXL": (2560, 48, 40),
}

TOKENIZER_SIZES = {
    name: TransformerSize(name=name, width=width, layers=layers, heads=heads)
    for name, (width, layers, heads) in _SHAPES.items()
}
"""Transformers of tokenizers, encoder and decoder alike; T is the reference's "tiny"."""

# The tokenizers of the paper have the shapes of the generators of the same name.
GENERATOR_SIZES = {name: size for name, size in TOKENIZER_SIZES.items() if name not in ("T", "S")}
"""Generators GPT-B to GPT-XXXL."""
