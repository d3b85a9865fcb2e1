"""Train the autoregressive probe on codes; its validation loss measures latent complexity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gigatok.data.splits import batch_indices, on_host
from gigatok.models.generator.base import build_generator
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.distributed import gathered, parallelise
from gigatok.runtime.tracker import Tracker
from gigatok.stages.train_generator.scoring import score_generator, token_loss
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.training.ahead import Ahead
from gigatok.training.saved import Codes, save_generator
from gigatok.training.seeds import step_seed
from gigatok.training.trainer import Trainer


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

    def read(step: int, part: slice) -> list[Tensor]:
        return [on_host(one, runtime.device) for one in batch(codes, config, step, part)]

    # Codes are mapped from a file: the next step's are read while this one runs.
    batches = Ahead(read)

    def compute_losses(step: int, part: slice) -> dict[str, Tensor]:
        codes_BT, classes_B = batches.get(step, part)
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
    return _with_views(score_generator(generator, codes, runtime.device), len(codes.train))


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
