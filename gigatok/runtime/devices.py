"""Settings of the device that a process computes on.

On a CPU there is nothing to set: its kernels compute float32 exactly and in a fixed order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def prepare_device(device: str) -> None:
    """Choose the kernels of a GPU, for all that this process computes.

    * TF32 for products and convolutions of float32, as the authors' scripts do: inputs are rounded
      to 10 bits of mantissa, sums are float32. What a code or a score hangs on is left out
      (`full_precision`).
    * Deterministic kernels; those without a deterministic version warn instead of failing.
    """
    if not device.startswith("cuda"):
        return
    # Read when the device is first used: else cuBLAS may sum in another order in every call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # These two and not `set_float32_matmul_precision`, which would round on the CPU as well.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    # Only here: the call takes a second to import torch's compiler.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every new tensor with NaN costs time and only helps to find uninitialised reads.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def writes_apart() -> Iterator[None]:
    """Let indices be written to by kernels that are deterministic only if no two are equal.

    For code whose indices never are. The others sort the indices first, in several kernels.
    """
    chosen = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(chosen, warn_only=warns)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Compute in float32, without autocast and TF32: a code must not hang on rounding."""
    if device.type == "cuda":
        return _exact()
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def _exact() -> Iterator[None]:
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
