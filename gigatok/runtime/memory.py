"""Memory of the C library's allocator, where torch's tensors on a CPU come from."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
_KEPT = 2**31 - 1
"""Bytes of free memory that the process keeps; the largest value of a C int."""


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensors of this process, where the C library is glibc.

    By default glibc asks the kernel for each block of 32 MiB or more, which then fills it with
    zeros page by page, and returns it at once. One map of 128 channels at 256 pixels is as large:
    it took an eighth of a tokenizer's time.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # musl has none
        set_option(_MMAP_THRESHOLD, _KEPT)
        set_option(_TRIM_THRESHOLD, _KEPT)
