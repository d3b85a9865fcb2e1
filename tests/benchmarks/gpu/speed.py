"""Sections that measure: rates of the device, training, sampling, codes, the loader."""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gigatok.config import TokenizerConfig
from gigatok.costs.memory import tokenizer_training_memory
from gigatok.data.image_sets import DECODERS, EncodedImages, decode
from gigatok.data.splits import on_host, to_device, to_unit_range, training_batch
from gigatok.models.generator.layout import sampling_flops
from gigatok.models.tokenizer.layout import tokenizer_flops
from gigatok.training.ahead import Ahead
from tests.benchmarks import codes as code_extraction
from tests.benchmarks import sampling as drawing
from tests.benchmarks import training_step
from tests.benchmarks.gpu.rows import Row, Settings, speed_row
from tests.benchmarks.measuring import (
    CODEBOOK_SIZE,
    IMAGE_SIZE,
    NUM_TOKENS,
    generator_architecture,
    seconds,
    synchronise,
    tokenizer_architecture,
)

BATCHES = {"S-S": 128, "B-L": 64, "GPT-B": 256, "GPT-L": 128}
"""Batch sizes in which models are trained here, by name."""
TOKENIZERS = (
    *(("B-L", "eager"), ("B-L", "compiled"), ("S-S", "eager"), ("S-S", "compiled")),
    *(("B-L", "recomputed"), ("B-L", "compiled, recomputed")),
)
GENERATORS = tuple((name, how) for name in ("GPT-B", "GPT-L") for how in ("eager", "compiled"))
"""Models and the variants in which they are trained; what is worth most comes first."""
DRAWN = (
    *((64, "bfloat16", 1.0), (64, "bfloat16", 2.0)),
    *((64, "float32", 1.0), (256, "bfloat16", 1.0)),
)
"""Batch, type of weights and scale of guidance in which codes are drawn."""
GRAPHS = DRAWN[:2]
"""Those of which the steps are compiled as well."""
LARGEST = ("XL-XXL", "B-L", "S-L", "S-B", "S-S")
"""Tokenizers by falling size."""
VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {},
    "recomputed": {"recompute": True},
    "compiled": {"compiled": True},
    "compiled, recomputed": {"compiled": True, "recompute": True},
}


def rates(settings: Settings) -> Iterator[Row]:
    """Measure products of large matrices, and copies: the base of all utilisation."""
    side, repeats = settings.size(8192, 256), settings.size(20, 1)
    a, b = (torch.randn(side, side, device=settings.device) for _ in range(2))
    pairs = {"bf16": (a.bfloat16(), b.bfloat16()), "fp32 as stages run": (a, b)}
    for name, (left, right) in pairs.items():
        rate = 2 * side**3 / seconds(lambda x=left, y=right: x @ y, repeats)  # type: ignore[misc]
        what, words = f"product of {side} x {side}, {name}", f"{rate / 1e12:.2f} TFLOP/s"
        yield Row(what, words, figures={"flops_per_second": rate})
    rate = 2 * a.nbytes / seconds(lambda: b.copy_(a), repeats)
    yield _bandwidth("copy in memory", rate)
    image = np.zeros((settings.size(1024, 8), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    host = on_host(image, settings.device)
    rate = host.nbytes / seconds(lambda: to_device(host, settings.device), repeats)
    yield _bandwidth("copy to the device", rate)


def _bandwidth(what: str, rate: float) -> Row:
    return Row(what, f"{rate / 1e9:,.1f} GB/s", figures={"bytes_per_second": rate})


def tokenizer_training(settings: Settings) -> Iterator[Row]:
    """Train S-S and B-L, eager and compiled, with and without activation checkpointing."""
    # Without the compiler, which takes minutes on a CPU.
    for name, variant in (("tiny", "eager"),) if settings.quick else TOKENIZERS:
        yield _trained(name, variant, BATCHES.get(name, 1), settings)


def generator_training(settings: Settings) -> Iterator[Row]:
    """Train GPT-B and GPT-L, eager and compiled."""
    for name, variant in (("GPT-tiny", "eager"),) if settings.quick else GENERATORS:
        yield _trained(name, variant, BATCHES.get(name, 1), settings)


def largest_tokenizer(settings: Settings) -> Iterator[Row]:
    """Train the largest published tokenizer that fits, recomputing layers."""
    size = settings.size(16, 1)
    memory = 2**40 if settings.quick else torch.cuda.mem_get_info()[1]
    names = ("tiny",) if settings.quick else LARGEST
    for name in names:
        architecture = tokenizer_architecture(name).model_dump()
        training = {"steps": 1, "batch_size": size, "lr": 1e-4, "activation_checkpointing": True}
        config = TokenizerConfig(**architecture, **training, perceptual_weight=0)
        needed = tokenizer_training_memory(config, IMAGE_SIZE, cached_teacher=True)
        if needed > 0.9 * memory:
            yield Row(name, f"would need {needed / 2**30:.0f} GiB", note="left out")
            continue
        yield _trained(name, "recomputed", size, settings)
        return


def _trained(name: str, variant: str, batch_size: int, settings: Settings) -> Row:
    """Measure steps of a model in bfloat16, or report that memory does not suffice."""
    batch_size = settings.size(batch_size, 1)
    precision = "fp32" if settings.quick else "bf16"
    count, options = settings.size(8, 1), VARIANTS[variant]
    training = training_step.settings_of(batch_size, count, precision, **options)
    what = f"{name}, batch {batch_size}, {variant}"
    _forget()
    try:
        found = training_step.measure(name, training)
    except torch.OutOfMemoryError as error:
        return Row(what, "out of memory", note=str(error).partition("\n")[0])
    speed = batch_size / found.seconds
    row = speed_row(what, speed, "images/s", settings, 3 * found.flops)
    words = f"{row.found}, {found.memory / 2**30:.1f} GiB"
    figures = {**row.figures, "bytes": float(found.memory), "step_seconds": found.seconds}
    left_out = "" if name.startswith("GPT-") else "without LPIPS, teacher and discriminator"
    return Row(what, words, note=left_out, figures=figures)


def sampling(settings: Settings) -> Iterator[Row]:
    """Draw codes with GPT-B and GPT-L, without and with guidance."""
    for name in ("GPT-tiny",) if settings.quick else ("GPT-B", "GPT-L"):
        for drawn in DRAWN:
            yield _drawn(name, *drawn, settings)


def graphs(settings: Settings) -> Iterator[Row]:
    """Draw codes with CUDA graphs."""
    for drawn in GRAPHS:
        # Traced only where the compiler would take minutes.
        backend = "eager" if settings.quick else "inductor"
        yield _drawn("GPT-tiny" if settings.quick else "GPT-B", *drawn, settings, backend)


def _drawn(
    name: str, batch: int, dtype: str, scale: float, settings: Settings, backend: str | None = None
) -> Row:
    _forget()
    batch, count = settings.size(batch, 1), settings.size(NUM_TOKENS, 4)
    found = drawing.measure(name, scale, batch, count, 1, dtype, backend)
    config = generator_architecture(name)
    flops = sampling_flops(config, CODEBOOK_SIZE, NUM_TOKENS, guided=scale > 1) / NUM_TOKENS
    guidance = f", guidance {scale:g}" if scale > 1 else ""
    what = f"{name}, batch {batch}, {dtype}{guidance}{', compiled' if backend else ''}"
    speed = batch * count / found.seconds
    read = found.weights * count / found.seconds
    position = found.seconds / count * 1e3
    note = f"{position:.2f} ms a position, {read / 1e9:,.0f} GB/s of weights"
    return speed_row(what, speed, "tokens/s", settings, flops, note)


def codes(settings: Settings) -> Iterator[Row]:
    """Encode images from uint8 to codes."""
    batch, repeats = settings.size(128, 1), settings.size(5, 1)
    for name in ("tiny",) if settings.quick else ("S-S", "B-L"):
        flops = tokenizer_flops(tokenizer_architecture(name), IMAGE_SIZE).encode
        for precision in ("fp32", "bf16"):
            _forget()
            found = code_extraction.measure(name, batch, repeats, precision)
            what = f"{name}, batch {batch}, {precision}"
            yield speed_row(what, batch / found.seconds, "images/s", settings, flops)


def loader(settings: Settings) -> Iterator[Row]:
    """Decode and crop JPEGs ahead of steps, and see how much it slows the thread that launches."""
    size, steps = settings.size(128, 8), settings.size(20, 3)
    images = synthetic_jpegs(settings.size(1024, 16))

    def read(step: int, part: slice) -> Tensor:
        batch = training_batch(images, IMAGE_SIZE, "crop_flip", 0, step, size, part)
        return on_host(batch[0], settings.device)

    alone = launches(settings)
    batches, all_of_it = Ahead(read), slice(0, size)
    batches.get(0, all_of_it)
    start = time.perf_counter()
    for step in range(1, steps):
        to_unit_range(to_device(batches.get(step, all_of_it), settings.device))
    synchronise()
    speed = (steps - 1) * size / (time.perf_counter() - start)
    note = f"{DECODERS} threads, 500 x 375 pixels in, {IMAGE_SIZE} out"
    figures: dict[str, float | None] = {"images/s": speed}
    yield Row(f"JPEGs, batch {size}", f"{speed:,.0f} images/s", note=note, figures=figures)
    # The next batch is being decoded.
    beside = launches(settings)
    figures = {"alone": alone, "beside": beside}
    words = f"{beside / alone:.0%} of those alone"
    yield Row("kernels launched while JPEGs are decoded", words, figures=figures)


def launches(settings: Settings) -> float:
    """Count how many small kernels a second the main thread launches."""
    x, count = torch.zeros(16, device=settings.device), settings.size(20_000, 2_000)
    start = time.perf_counter()
    for _ in range(count):
        x.add_(1)
    synchronise()
    return count / (time.perf_counter() - start)


def synthetic_jpegs(count: int) -> EncodedImages:
    """Make JPEGs of ImageNet's usual size, about 100 KB each, in memory."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(min(count, 64)):
        # Smooth at some scale, as photographs are: noise would take longer to decode.
        small = Image.fromarray(random.integers(256, size=(94, 125, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "jpeg", quality=92)
        files.append(file.getvalue())
    rows = np.arange(count)
    read: Callable[[int], Any] = lambda row: decode(files[row % len(files)])  # noqa: E731
    return EncodedImages(read, rows, rows % 10, 10, IMAGE_SIZE, str, "")


def _forget() -> None:
    """Free what the measurement before held, so that the peak of memory is the next one's."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
