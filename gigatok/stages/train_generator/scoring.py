"""Scores of a generator, trained or adopted: its parameters and its losses on codes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gigatok.models.generator.base import Generator
from gigatok.runtime.context import Scores
from gigatok.training.saved import Codes

EVALUATION_BATCH = 256  # images per forward pass
LARGEST_LOGITS = 2**28
"""Most logits that are in float32 at once: 1 GiB."""


def token_loss(generator: nn.Module, codes_BT: Tensor, classes_B: Tensor, device: str) -> Tensor:
    """Average the cross-entropy over all positions, in float32: nats per token."""
    codes_BT, classes_B = (x.to(device, non_blocking=True) for x in (codes_BT, classes_B))
    logits = generator(codes_BT, classes_B)
    # (B * T, V) against (B * T,).
    return cross_entropy(logits.flatten(0, 1), codes_BT.flatten())


def cross_entropy(logits_MV: Tensor, codes_M: Tensor) -> Tensor:
    """Average the cross-entropy in float32, in parts of the positions where they are many."""
    if logits_MV.numel() <= LARGEST_LOGITS:
        return F.cross_entropy(logits_MV.float(), codes_M)
    rows = max(1, LARGEST_LOGITS // logits_MV.shape[1])
    parts = zip(torch.split(logits_MV, rows), torch.split(codes_M, rows), strict=True)
    # Checkpointed, so that of float32 logits, their softmax and its gradient only one part is in
    # memory: of 256 images of 256 tokens all of them are 4.3 GB each.
    sums = [checkpoint(_summed_entropy, *part, use_reentrant=False) for part in parts]
    return torch.stack(sums).sum() / len(codes_M)


def _summed_entropy(logits_MV: Tensor, codes_M: Tensor) -> Tensor:
    return F.cross_entropy(logits_MV.float(), codes_M, reduction="sum")


@torch.inference_mode()
def mean_loss(generator: Generator, codes_NT: Tensor, classes_N: Tensor, device: str) -> float:
    """Average the teacher-forced loss over a set, all images weighted alike: nats per token."""
    losses: list[Tensor] = []
    counts: list[int] = []
    for start in range(0, len(codes_NT), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        loss = token_loss(generator, codes_NT[part].long(), classes_N[part], device)
        losses.append(loss)
        counts.append(len(codes_NT[part]))
    # Read at the end, so that no batch waits. Weighted by images, as the last batch is smaller;
    # the authors average over batches.
    total = sum(float(loss) * count for loss, count in zip(losses, counts, strict=True))
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
