"""Training steps of published models: images per second, peak memory, FLOPs utilisation.

    python -m tests.benchmarks.training_step --model B-L --model GPT-B --precision bf16

The step is the trainer's own: forward, backward, clipping, AdamW. Data is random and on the
device. Of a tokenizer's losses, reconstruction, quantizer and semantic head are in it; LPIPS, the
teacher and the discriminator, whose cost does not grow with the tokenizer, are not. Utilisation
counts three forward passes per step, without what activation checkpointing computes again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from gigatok.config import GeneratorConfig, TokenizerConfig, TrainingConfig
from gigatok.runtime.context import Runtime
from gigatok.runtime.distributed import parallelise
from gigatok.runtime.tracker import NullTracker
from gigatok.stages.train_tokenizer.losses import tokenizer_losses
from gigatok.training.saved import place
from gigatok.training.trainer import ComputeLosses, Trainer
from tests.benchmarks.measuring import (
    CODEBOOK_SIZE,
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_TOKENS,
    TEACHER_DIM,
    build_generator,
    build_tokenizer,
    device,
    forward_flops,
    generator_architecture,
    in_own_process,
    peak_flops,
    peak_memory,
    show,
    synchronise,
    tokenizer_architecture,
)

WARM_UP = 2


@dataclass(frozen=True)
class Measurement:
    """Of one model; time of a step in seconds, memory in bytes."""

    parameters: int
    seconds: float
    memory: int
    flops: int
    """Of one image, forward."""


def main(
    model: Annotated[list[str] | None, typer.Option(help="S-B, GPT-L, ...; repeatable")] = None,
    batch_size: int = 2,
    steps: int = 3,
    precision: str = "fp32",
    compiled: bool = False,
    recompute: bool = False,
) -> None:
    """Measure each model in a process of its own."""
    training = settings_of(batch_size, steps, precision, compiled=compiled, recompute=recompute)
    rows = []
    for name in model or ["S-S", "GPT-B"]:
        result = in_own_process(measure, name, training)
        speed = batch_size / result.seconds
        achieved = 3 * result.flops * speed
        peak = peak_flops()
        rows.append(
            [
                name,
                f"{result.parameters / 1e6:.1f} M",
                f"{speed:.2f}",
                f"{result.seconds * 1e3:.0f} ms",
                f"{result.memory / 2**30:.2f} GiB",
                f"{result.flops / 1e9:.1f} G",
                f"{achieved / 1e12:.2f} T/s",
                "unknown peak" if peak is None else f"{achieved / peak:.1%}",
            ]
        )
    columns = ["model", "parameters", "images/s", "step", "peak memory", "forward FLOPs/image"]
    columns += ["model FLOPs", "utilisation"]
    show(f"Training, batch {batch_size}, {precision}", columns, rows)


def settings_of(
    batch_size: int, steps: int, precision: str, *, compiled: bool = False, recompute: bool = False
) -> dict[str, Any]:
    """Settings of a training of so many steps after the warm-up."""
    return {
        "steps": WARM_UP + steps,
        "batch_size": batch_size,
        "lr": 1e-4,
        "grad_clip": 1.0,
        "precision": precision,
        "log_every": WARM_UP + steps,
        "compile": compiled,
        "activation_checkpointing": recompute,
    }


def measure(name: str, training: Mapping[str, Any]) -> Measurement:
    """Train for a few steps, the first of which are not counted."""
    torch.manual_seed(0)
    prepare = prepare_generator if name.startswith("GPT-") else prepare_tokenizer
    task = prepare(name, training)
    watch = Stopwatch(task.config.steps)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            task.model,
            task.config,
            0,
            task.losses,
            NullTracker(),
            Runtime(Path(folder), device()),
            after_step=watch.after_step,
            forward=task.forward,
        ).run()
    parameters = sum(p.numel() for p in task.model.parameters())
    return Measurement(parameters, watch.seconds, peak_memory(), task.flops)


@dataclass(frozen=True)
class Task:
    """What to train, and the FLOPs of a forward pass of one image."""

    model: nn.Module
    config: TrainingConfig
    forward: nn.Module
    losses: ComputeLosses
    flops: int


def prepare_tokenizer(name: str, training: Mapping[str, Any]) -> Task:
    """A tokenizer with the losses that its own output and its input make up."""
    config = TokenizerConfig(
        **tokenizer_architecture(name).model_dump(), **training, perceptual_weight=0
    )
    model = place(build_tokenizer(config, device()), device())
    forward = parallelise(model, config)
    image_BCHW = torch.rand(config.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, device=device()) * 2 - 1
    cells = (config.batch_size, model.grid_size**2, TEACHER_DIM)
    teacher_BPS = torch.randn(cells, device=device())

    def losses(step: int, part: slice) -> Mapping[str, Tensor]:
        image, teacher = image_BCHW[part], teacher_BPS[part]
        return tokenizer_losses(config, forward(image), image, teacher, None)

    twin = build_tokenizer(tokenizer_architecture(name), "meta")
    flops = forward_flops(twin, torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta"))
    return Task(model, config, forward, losses, flops)


def prepare_generator(name: str, training: Mapping[str, Any]) -> Task:
    """A generator of the codes of one image."""
    config = GeneratorConfig(**generator_architecture(name).model_dump(), **training)
    model = build_generator(config, device())
    forward = parallelise(model, config)
    shape = (config.batch_size, NUM_TOKENS)
    codes_BT = torch.randint(CODEBOOK_SIZE, shape, device=device())
    classes_B = torch.randint(NUM_CLASSES, shape[:1], device=device())

    def losses(step: int, part: slice) -> Mapping[str, Tensor]:
        logits = forward(codes_BT[part], classes_B[part])
        return {"loss": F.cross_entropy(logits.float().flatten(0, 1), codes_BT[part].flatten())}

    twin = build_generator(generator_architecture(name), "meta")
    codes = torch.zeros(1, NUM_TOKENS, dtype=torch.int64, device="meta")
    return Task(model, config, forward, losses, forward_flops(twin, codes, codes[:, 0]))


class Stopwatch:
    """Times the steps after the warm-up."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.seconds = 0.0

    def after_step(self, step: int) -> None:
        """Start after the warm-up; take the mean after the last step."""
        if step == WARM_UP:
            synchronise()
            self._start = time.perf_counter()
        if step == self._last:
            synchronise()
            self.seconds = (time.perf_counter() - self._start) / (self._last - WARM_UP)


if __name__ == "__main__":
    typer.run(main)
