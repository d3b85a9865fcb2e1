"""Scores of a generator, trained or adopted: its parameters and its losses on codes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.models.generator.base import Generator
from gigatok.runtime.context import Scores
from gigatok.training.saved import Codes

EVALUATION_BATCH = 256  # images per forward pass


def token_loss(generator: nn.Module, codes_BT: Tensor, classes_B: Tensor, device: str) -> Tensor:
    """Average the cross-entropy over all positions, in float32: nats per token."""
    codes_BT = codes_BT.to(device)
    logits = generator(codes_BT, classes_B.to(device))
    # (B * T, V) against (B * T,).
    return F.cross_entropy(logits.float().flatten(0, 1), codes_BT.flatten())


@torch.inference_mode()
def mean_loss(generator: Generator, codes_NT: Tensor, classes_N: Tensor, device: str) -> float:
    """Average the teacher-forced loss over a set, all images weighted alike: nats per token."""
    total = 0.0
    for start in range(0, len(codes_NT), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        loss = token_loss(generator, codes_NT[part].long(), classes_N[part], device)
        # Weighted by images, as the last batch is smaller; the authors average over batches.
        total += float(loss) * len(codes_NT[part])
    return total / len(codes_NT)


def score_generator(generator: Generator, codes: Codes, device: str) -> Scores:
    """Score a generator in eval mode: its parameters, and its loss on both splits."""
    val_loss = mean_loss(generator, codes.val, codes.val_labels, device)
    # As many training images as validation images, so that both losses are as exact.
    seen = min(len(codes.val), codes.train.shape[1])
    train_loss = mean_loss(generator, codes.train[0, :seen], codes.train_labels[:seen], device)
    tokens = codes.val.shape[1]
    condition = "class-conditional" if codes.num_classes > 1 else "unconditional"
    images, how = f"{len(codes.val)} val images", f"{condition}, no dropout"
    return Scores(
        {
            "params_generator": sum(p.numel() for p in generator.parameters()),
            "ar_val_loss": val_loss,
            "ar_train_loss": train_loss,
            # Nats per token -> bits per image.
            "ar_bits_per_image": val_loss * tokens / math.log(2),
        },
        {
            # The loss of a token depends on how many share an image, and of how many codes it is
            # one; bits of an image compare between tokenizers.
            "ar_val_loss": f"{images}, {tokens} tokens of {codes.codebook_size} codes, {how}",
            "ar_bits_per_image": f"{images}, {how}",
            "ar_train_loss": f"first {seen} training images, otherwise as on validation images",
        },
    )
