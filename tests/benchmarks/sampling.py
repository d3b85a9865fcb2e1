"""Drawing codes from published generators: tokens per second, with guidance and without.

    python -m tests.benchmarks.sampling --model GPT-B --batch-size 64 --dtype bfloat16

A code costs one pass over all weights for the whole batch, so small batches wait for memory and
large ones for arithmetic; guidance doubles the batch. The last column is the rate at which
weights would be read if nothing else were: compare it with the machine's memory bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import typer

from gigatok.config import SamplingConfig
from gigatok.models.generator.steps import CompiledSteps, Steps
from gigatok.scores.sampling import generate
from tests.benchmarks.measuring import (
    NUM_CLASSES,
    build_generator,
    device,
    generator_architecture,
    in_own_process,
    peak_memory,
    seconds,
    show,
)


@dataclass(frozen=True)
class Measurement:
    """Of one model; time of a batch in seconds, memory and weights in bytes."""

    seconds: float
    memory: int
    weights: int


def main(
    model: Annotated[list[str] | None, typer.Option(help="GPT-B, ...; repeatable")] = None,
    batch_size: int = 4,
    num_tokens: int = 256,
    repeats: int = 1,
    dtype: str = "float32",
    compiled: bool = False,
) -> None:
    """Measure each model in a process of its own."""
    rows = []
    for name in model or ["GPT-B"]:
        for cfg_scale in (1.0, 1.5):
            backend = "inductor" if compiled else None
            options = (name, cfg_scale, batch_size, num_tokens, repeats, dtype, backend)
            result = in_own_process(measure, *options)
            rows.append(
                [
                    name,
                    "no" if cfg_scale == 1 else f"{cfg_scale:g}",
                    f"{batch_size * num_tokens / result.seconds:,.0f}",
                    f"{batch_size / result.seconds:.2f}",
                    f"{result.seconds / num_tokens * 1e3:.1f} ms",
                    f"{result.memory / 2**30:.2f} GiB",
                    f"{result.weights * num_tokens / result.seconds / 1e9:.1f} GB/s",
                ]
            )
    columns = ["model", "guidance", "tokens/s", "images/s", "time per position", "peak memory"]
    show(f"Sampling, batch {batch_size}, {dtype}", [*columns, "weights read"], rows)


def measure(
    name: str,
    cfg_scale: float,
    batch_size: int,
    num_tokens: int,
    repeats: int,
    dtype: str,
    backend: str | None = None,
) -> Measurement:
    """Draw a batch of images with random weights; `backend` compiles its steps."""
    torch.manual_seed(0)
    generator = build_generator(generator_architecture(name), device()).eval()
    generator.to(getattr(torch, dtype))
    config = SamplingConfig(cfg_scale=cfg_scale, num_images=max(4, batch_size))
    classes_B = torch.randint(NUM_CLASSES, (batch_size,), device=device())
    rng = torch.Generator(device()).manual_seed(0)
    steps = Steps(generator) if backend is None else CompiledSteps(generator, backend)
    draw = partial(generate, generator, classes_B, config, rng, num_tokens, steps=steps)
    time = seconds(draw, repeats)
    weights = sum(p.numel() * p.element_size() for p in generator.parameters())
    return Measurement(time, peak_memory(), weights)


if __name__ == "__main__":
    typer.run(main)
