"""What the benchmarks share: the machine and its peak, published models, time, memory, FLOPs."""

from __future__ import annotations

import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config import (
    CNNConfig,
    Config,
    GeneratorArchitecture,
    TokenizerArchitecture,
    TrainingConfig,
    TransformerSize,
)
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.published.sizes import GENERATOR_SIZES, TOKENIZER_SIZES

T = TypeVar("T")

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bfloat16 multiply-adds x 2 per second, from the makers' data sheets."""
TINY, TINY_SIZE = "tiny", TransformerSize(width=32, layers=3, heads=1)
"""Name and transformers of models of which times mean nothing: they try a benchmark itself."""
IMAGE_SIZE, NUM_TOKENS, CODEBOOK_SIZE, NUM_CLASSES, TEACHER_DIM = 256, 256, 16384, 1000, 768


def device() -> str:
    """`cuda` where there is a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """Name of what is measured."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def peak_flops() -> float | None:
    """Peak of this machine in bfloat16; None where it is not known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)


def tokenizer_architecture(name: str) -> TokenizerArchitecture:
    """The published 1D tokenizer of a name such as `S-B`, or `tiny`."""
    if name == TINY:
        cnn = CNNConfig(channels=16, multipliers=(1, 1, 1, 1, 1), resblocks=1, groups=4)
        return TokenizerArchitecture(encoder=TINY_SIZE, decoder=TINY_SIZE, cnn=cnn)
    encoder, _, decoder = name.partition("-")
    return TokenizerArchitecture(
        encoder=_size(TOKENIZER_SIZES, encoder), decoder=_size(TOKENIZER_SIZES, decoder)
    )


def generator_architecture(name: str) -> GeneratorArchitecture:
    """The published generator of a name such as `GPT-B`, or `GPT-tiny`."""
    if name == f"GPT-{TINY}":
        return GeneratorArchitecture(size=TINY_SIZE)
    return GeneratorArchitecture(size=_size(GENERATOR_SIZES, name.removeprefix("GPT-")))


def build_tokenizer(config: TokenizerArchitecture, where: str) -> GigaTok:
    """With random weights, on a device."""
    with torch.device(where):
        return GigaTok(config, IMAGE_SIZE, TEACHER_DIM, activation_checkpointing=_again(config))


def build_generator(config: GeneratorArchitecture, where: str) -> LlamaGen:
    """With random weights, on a device."""
    with torch.device(where):
        return LlamaGen(
            config, CODEBOOK_SIZE, NUM_CLASSES, NUM_TOKENS, activation_checkpointing=_again(config)
        )


def _again(config: Config) -> bool:
    """Whether layers are recomputed, of a config of training."""
    return isinstance(config, TrainingConfig) and config.activation_checkpointing


def forward_flops(model: nn.Module, *inputs: torch.Tensor) -> int:
    """FLOPs of a forward pass, counted on the meta device: matrix products and convolutions."""
    # Fused attention has no counter on every device, its plain form consists of products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*inputs)
    return counter.get_total_flops()


def synchronise() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Mean time of a call, after one that is not counted."""
    function()
    synchronise()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    synchronise()
    return (time.perf_counter() - start) / repeats


def peak_memory() -> int:
    """Largest memory of this process in bytes: tensors on the GPU, or everything on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process, so that its peak of memory is its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table of measurements."""
    table = Table(title=f"{title} on {machine()}, torch {torch.__version__}")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _size(table: dict[str, TransformerSize], name: str) -> TransformerSize:
    if name not in table:
        raise ValueError(f"no size {name!r}; there are {', '.join(table)}")
    return table[name]
