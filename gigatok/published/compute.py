"""Compute that the paper reports for training, against the model of `gigatok.costs.training`."""

from __future__ import annotations

from gigatok.config import GeneratorArchitecture, TokenizerArchitecture
from gigatok.costs.training import generator_training_flops
from gigatok.models.tokenizer.layout import tokenizer_flops
from gigatok.published.sizes import GENERATOR_SIZES

V100_PEAK = 125e12
"""FLOPs per second of a V100's tensor cores in fp16, from NVIDIA's data sheet."""
PUBLISHED_GENERATOR_HOURS = 64 * 170
"""V100-hours of the published GPT-L of 343 M parameters (paper, section 3.1)."""
PUBLISHED_GENERATOR_IMAGES = 1_500_000 * 256
"""Images that GPT-L sees: 300 epochs of 1.28 M (the reference's `train_c2i.py`)."""


def published_utilisation(tokenizer: TokenizerArchitecture | None = None) -> float:
    """Compute the share of the V100s' peak that the published cost of GPT-L implies.

    The reference encodes each batch while it trains the generator: with a `tokenizer`, its
    encoding at 256 pixels counts as well.

    1.5 M steps x 256 images x 519 GFLOP = 1.99e20 FLOP in 64 x 170 h x 3600 s are 5.1 TFLOP/s per
    V100: 4.1 % of the tensor cores' 125, 5.3 to 5.6 % with the encoding of S-S to B-L, and a third
    (32 %) of the 15.7 of fp32. So the published hours do not follow from the model at a usual
    utilisation of tensor cores (30 to 50 %). They do if the tensor cores were idle, which is
    plausible: V100s have no bf16, LlamaGen's default. Waiting for data and for other processes
    would explain them as well; the paper does not say.
    """
    size = GENERATOR_SIZES["L"]
    # 16384 codes and 256 tokens, as all published generators.
    per_image = generator_training_flops(GeneratorArchitecture(size=size), 16384, 256)
    if tokenizer is not None:
        per_image += tokenizer_flops(tokenizer, 256).encode
    # Hours -> seconds -> FLOPs at peak.
    available = PUBLISHED_GENERATOR_HOURS * 3600 * V100_PEAK
    return PUBLISHED_GENERATOR_IMAGES * per_image / available
