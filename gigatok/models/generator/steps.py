"""Steps of drawing codes one by one, as they are or compiled.

B batch, V codebook_size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gigatok.models.generator.base import Generator
from gigatok.runtime.devices import writes_apart


class Steps:
    """Steps of a generator, one operation after the other; each batch has a cache of its own."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self._cache: Any = None
        self._place = 0

    def first(self, classes_B: Tensor) -> Tensor:
        """Begin a batch: logits (B, V) of code 0, given the classes."""
        self._cache, self._place = self.generator.allocate_cache(len(classes_B)), 0
        return self.generator.first_logits(classes_B, self._cache)

    def next(self, codes_B: Tensor) -> Tensor:
        """Compute logits (B, V) of the next code, given the last one."""
        self._place += 1
        return self.generator.next_logits(codes_B, self._place, self._cache)


class CompiledSteps(Steps):
    """Steps that torch.compile made one graph, on a GPU a CUDA graph; for static caches.

    A CUDA graph is launched as a whole: a small generator otherwise waits for the CPU, which
    launches over a hundred kernels for each code.
    """

    def __init__(self, generator: Generator, backend: str = "inductor") -> None:
        super().__init__(generator)
        self._caches: dict[int, Any] = {}
        # Of the backends, this one alone knows modes; `reduce-overhead` is that of CUDA graphs.
        mode = "reduce-overhead" if backend == "inductor" else None
        self._compiled: Callable[..., Tensor] = torch.compile(
            generator.next_logits, backend=backend, mode=mode, fullgraph=True, dynamic=False
        )

    def first(self, classes_B: Tensor) -> Tensor:
        """Begin a batch: logits (B, V) of code 0, given the classes."""
        size = len(classes_B)
        # Kept: another cache at another place in memory would need another CUDA graph.
        if size not in self._caches:
            self._caches[size] = self._static_cache(size)
        self._cache = self._caches[size]
        self._place_1 = torch.zeros(1, dtype=torch.int64, device=classes_B.device)
        return self.generator.first_logits(classes_B, self._cache)

    def next(self, codes_B: Tensor) -> Tensor:
        """Compute logits (B, V) of the next code, given the last one."""
        # On the device: a number would be compiled in, once for each position.
        self._place_1 += 1
        # A code is written to one position of the caches.
        with writes_apart():
            return self._compiled(codes_B, self._place_1, self._cache)

    def _static_cache(self, size: int) -> Any:
        cache = self.generator.allocate_static_cache(size)
        for tensor in cache.tensors:
            # Else CUDA graphs are given up, as its inputs are written to.
            torch._dynamo.mark_static_address(tensor)
        return cache


def steps_of(generator: Generator, *, compiled: bool) -> Steps:
    """Make the steps of a generator; without a static cache they cannot be compiled."""
    if compiled and generator.allocate_static_cache(1) is not None:
        return CompiledSteps(generator)
    return Steps(generator)
