"""Small networks on the meta device, and their FLOPs as torch's counter finds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config import (
    CNNConfig,
    GeneratorArchitecture,
    TokenizerArchitecture,
    TokenizerConfig,
    TransformerSize,
)
from gigatok.models.tokenizer.tokenizer import GigaTok

NARROW = TransformerSize(width=32, layers=2, heads=2)
WIDE = TransformerSize(width=48, layers=3, heads=3)
SMALL_CNN = CNNConfig(channels=16, multipliers=(1, 2), resblocks=1, z_channels=24, groups=4)
PATCHED_CNN = CNNConfig(
    channels=8,
    multipliers=(1, 2, 2),
    mid_blocks=0,
    z_channels=16,
    groups=4,
    patch_size=2,
    adaptive_norm=False,
)
SHAPES: dict[str, dict[str, Any]] = {
    "1d": {"encoder": NARROW, "decoder": WIDE, "cnn": SMALL_CNN, "num_latent_tokens": 8},
    "1d-patched": {"encoder": WIDE, "decoder": NARROW, "cnn": PATCHED_CNN, "num_latent_tokens": 4},
    "1d-entropy": {
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "num_latent_tokens": 16,
        "entropy_weight": 0.1,
    },
    "1d-fsq": {
        "encoder": NARROW,
        "decoder": WIDE,
        "cnn": SMALL_CNN,
        "num_latent_tokens": 8,
        "quantizer": {"name": "fsq", "levels": (8, 5, 5)},
    },
    "1d-bsq": {
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "num_latent_tokens": 8,
        "quantizer": {"name": "bsq", "bits": 9},
    },
    "2d-lfq": {
        "variant": "2d",
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "quantizer": {"name": "lfq", "bits": 7},
    },
    "1d-rvq": {
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "num_latent_tokens": 8,
        "quantizer": {"name": "rvq", "depth": 3},
    },
    "2d-vit": {"variant": "2d", "encoder": NARROW, "decoder": WIDE, "cnn": SMALL_CNN},
    "2d-qformer": {
        "variant": "2d",
        "encoder": WIDE,
        "decoder": NARROW,
        "cnn": PATCHED_CNN,
        "transformer_layer": "qformer",
    },
    "2d-double": {
        "variant": "2d",
        "encoder": NARROW,
        "decoder": NARROW,
        "cnn": SMALL_CNN,
        "transformer_layer": "double_attention",
    },
}
SIDE = 32
BATCH = 2


def counted(run: Callable[[], object]) -> int:
    """Of the plain form of attention, which the counter knows on every device."""
    # Of packed weights the counter knows nothing; the output's last axis is that of the weight.
    packed = {torch.ops.mkldnn._linear_pointwise: packed_flops}
    counter = FlopCounterMode(display=False, custom_mapping=packed)
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return int(counter.get_total_flops())


def packed_flops(x: tuple[int, ...], *_: object, out_shape: tuple[int, ...]) -> int:
    return 2 * math.prod(x) * out_shape[-1]


def backward(loss: Tensor) -> None:
    torch.autograd.backward(loss)


def architecture(shape: str, **more: Any) -> TokenizerArchitecture:
    values = {"codebook_size": 64, "usage_window": 128, "teacher": "pixels", "semantic_layer": 1}
    return TokenizerArchitecture(**{**values, **SHAPES[shape], **more})


def training(shape: str, **more: Any) -> TokenizerConfig:
    values = {"steps": 1, "batch_size": BATCH, "lr": 1e-3, "perceptual_weight": 0}
    return TokenizerConfig(**{**architecture(shape).model_dump(), **values, **more})


def tokenizer(config: TokenizerArchitecture) -> GigaTok:
    recompute = isinstance(config, TokenizerConfig) and config.activation_checkpointing
    with torch.device("meta"):
        return GigaTok(
            config, SIDE, teacher_dim=12, teacher_grid=4, activation_checkpointing=recompute
        )


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


GENERATORS = {
    "plain": GeneratorArchitecture(size=NARROW, ffn_multiple_of=32),
    "wide": GeneratorArchitecture(size=WIDE, dropout=0, ffn_multiple_of=16),
    "rope": GeneratorArchitecture(size=NARROW, position="rope_2d", ffn_multiple_of=64),
}
