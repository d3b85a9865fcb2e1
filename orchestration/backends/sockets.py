"""Folders for sockets of this machine: the kernel allows their paths about a hundred bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_SOCKET = 104
"""Bytes of a socket's path, with the zero at its end, on the strictest system (BSD, macOS)."""
OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


def short_folder(below: int) -> str:
    """Return the temporary folder; another one where its path is too long for sockets in it.

    Args:
        below: bytes that a socket's path has below that folder.

    Raises:
        ValueError: no folder that can be written is short enough.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, *OTHERS):
        if _fits(folder, below) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ValueError(
        f"TMPDIR {usual}: too long for sockets, whose paths may have {LONGEST_SOCKET - 1} bytes, "
        f"and {', '.join(OTHERS)} cannot be written; set TMPDIR to a folder with a short path"
    )


@contextmanager
def temporary_files_in(folder: str) -> Iterator[None]:
    """Have `tempfile` of this process use another folder for a while."""
    # Not by TMPDIR: the workers inherit the environment, and the user's choice of a folder for
    # large files must stay.
    before = tempfile.tempdir
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def _fits(folder: str, below: int) -> bool:
    return len(os.fsencode(folder)) + below < LONGEST_SOCKET
