"""Train the autoregressive probe on codes; its validation loss measures latent complexity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigatok.data.splits import batch_indices
from gigatok.models.generator.base import Generator, build_generator
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.distributed import gathered, parallelise
from gigatok.runtime.tracker import Tracker
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.training.saved import Codes, save_generator
from gigatok.training.seeds import step_seed
from gigatok.training.trainer import Trainer

EVALUATION_BATCH = 256  # images per forward pass


def run(
    config: TrainGeneratorConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Train; leave `model.safetensors`. Metrics: AR loss on both splits, bits per image."""
    # Before the model is made: its constructor draws the weights.
    torch.manual_seed(step_seed(config.seed, 0, "weights"))
    codes = Codes.load(inputs["extract_codes"])
    generator = build_generator(
        config.generator,
        codes.codebook_size,
        codes.num_classes,
        codes.val.shape[1],
        activation_checkpointing=config.generator.activation_checkpointing,
    ).to(runtime.device)
    # Called in place of the model: replicas or shards wrap it.
    forward = parallelise(generator, config.generator)

    def compute_losses(step: int, part: slice) -> dict[str, Tensor]:
        codes_BT, classes_B = batch(codes, config, step, part)
        return {"loss": token_loss(forward, codes_BT, classes_B, runtime.device)}

    Trainer(
        generator,
        config.generator,
        config.seed,
        compute_losses,
        tracker,
        runtime,
        forward=forward,
    ).run()
    save_generator(output_dir, generator, codes)
    gathered(generator)
    return _with_views(generator_scores(generator, codes, runtime.device), len(codes.train))


def _with_views(scores: Scores, views: int) -> Scores:
    """Add to the protocols on which views it trained: the reference draws a crop in every step."""
    trained = f", trained on codes of {views} fixed view{'s' * (views > 1)} of each image"
    return replace(scores, protocol={n: text + trained for n, text in scores.protocol.items()})


def batch(
    codes: Codes, config: TrainGeneratorConfig, step: int, part: slice
) -> tuple[Tensor, Tensor]:
    """Draw codes (B, T) of random views and classes (B,): a pure function of (seed, step)."""
    views, images, _ = codes.train.shape
    size = config.generator.batch_size
    indices = batch_indices(config.seed, step, size, images)[part]
    # Philox is keyed by seed and step, so a resumed step needs none of those before.
    random = np.random.Generator(np.random.Philox(step_seed(config.seed, step, "views")))
    # Drawn for the whole batch and then cut: processes and micro-batches change no draw.
    view = random.integers(views, size=size)[part]
    return codes.train[view, indices].long(), codes.train_labels[indices]


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


def generator_scores(generator: Generator, codes: Codes, device: str) -> Scores:
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
