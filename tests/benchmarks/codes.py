"""Extraction of codes by published tokenizers: images per second, from uint8 to codes.

    python -m tests.benchmarks.codes --model S-B --model B-L --batch-size 128 --precision bf16

The decoder takes no part: S-S and S-B are equally fast. Pixels are copied to the device and codes
back, as in the stage; reading and cropping images is not in it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from gigatok.data.splits import to_device, to_unit_range
from gigatok.training.saved import place
from tests.benchmarks.measuring import (
    IMAGE_SIZE,
    build_tokenizer,
    device,
    in_own_process,
    peak_memory,
    seconds,
    show,
    tokenizer_architecture,
)


@dataclass(frozen=True)
class Measurement:
    """Of one model; time of a batch in seconds, memory in bytes."""

    seconds: float
    memory: int


def main(
    model: Annotated[list[str] | None, typer.Option(help="S-B, ...; repeatable")] = None,
    batch_size: int = 4,
    repeats: int = 2,
    precision: str = "fp32",
) -> None:
    """Measure each model in a process of its own."""
    rows = []
    for name in model or ["S-S"]:
        result = in_own_process(measure, name, batch_size, repeats, precision)
        rows.append(
            [
                name,
                f"{batch_size / result.seconds:.2f}",
                f"{result.seconds * 1e3:.0f} ms",
                f"{result.memory / 2**30:.2f} GiB",
            ]
        )
    columns = ["model", "images/s", "batch", "peak memory"]
    show(f"Code extraction, batch {batch_size}, {precision}", columns, rows)


def measure(name: str, batch_size: int, repeats: int, precision: str) -> Measurement:
    """Encode random images with random weights."""
    torch.manual_seed(0)
    config = tokenizer_architecture(name)
    tokenizer = place(build_tokenizer(config, device()), device()).eval()
    shape = (batch_size, IMAGE_SIZE, IMAGE_SIZE, 3)
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    lower = torch.autocast(device(), torch.bfloat16) if precision == "bf16" else nullcontext()

    @torch.inference_mode()
    def encode() -> Tensor:
        with lower:
            image_BCHW = to_unit_range(to_device(pixels, device()))
            return tokenizer.encode(image_BCHW).to("cpu", torch.int16)

    return Measurement(seconds(encode, repeats), peak_memory())


if __name__ == "__main__":
    typer.run(main)
