"""Safetensors file whose tensors are filled piece by piece, without holding them in memory.

The format is public (https://github.com/huggingface/safetensors): the length of a JSON header in
eight bytes, little-endian, the header, then the tensors one after the other. Any safetensors
reader can read the finished file, or map it into memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigatok.files.durable import (
    Damaged,
    make_folder,
    read_checked,
    remove,
    step_path,
    steps,
    sync,
    write_checked,
)

_log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]
Shape = tuple[int, ...]

# Names of the types in the safetensors format.
_DTYPES = {"int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "float32": "F32"}
# As the format's own writer pads its header, so that mapped tensors are aligned.
_ALIGNMENT = 8


def open_streamed(path: Path, tensors: Mapping[str, tuple[str, Shape]]) -> Arrays:
    """Open arrays by name that live in a file; writing to them writes to the file.

    The file is created, full of zeros, unless it exists with the same tensors: then the arrays
    hold what was written before.

    Args:
        path: path of the file.
        tensors: dtype and shape of each tensor, in the order of the file.
    """
    header = _header(tensors)
    size = len(header) + sum(_bytes(dtype, shape) for dtype, shape in tensors.values())
    if not _holds(path, header, size):
        if path.is_dir():
            remove(path)
        make_folder(path.parent)
        with path.open("wb") as file:
            file.write(header)
            # A sparse file: no zero is written, and the disk fills as pieces come.
            file.truncate(size)
        # The header is flushed here and never again: `flush` waits for the tensors alone.
        sync(path)
        sync(path.parent)
    arrays: Arrays = {}
    offset = len(header)
    for name, (dtype, shape) in tensors.items():
        arrays[name] = np.memmap(path, dtype, "r+", offset, shape)
        offset += _bytes(dtype, shape)
    return arrays


def flush(arrays: Arrays) -> None:
    """Wait until everything written is on disk."""
    for array in arrays.values():
        assert isinstance(array, np.memmap)
        array.flush()


class StreamProgress:
    """Count of the pieces that are in a streamed file, as a record named `step-<pieces>`.

    The record holds a hash of the pieces between each two saves. So a file that lost some of them,
    for whatever reason, is detected and filled again from the first missing piece.

    Args:
        folder: folder of the record.
        arrays: the arrays that are filled.
        piece: returns the parts of the arrays that make up a piece, counted from 0.
    """

    def __init__(
        self, folder: Path, arrays: Arrays, piece: Callable[[int], Sequence[npt.NDArray[Any]]]
    ) -> None:
        self._folder, self._arrays, self._piece = folder, arrays, piece
        self._segments: list[tuple[int, str]] = []
        """Number of pieces at each save, and the hash of the pieces since the last save."""

    def read(self) -> int:
        """Count the pieces in the file that are as they were written, up to the first damage."""
        self._segments = []
        for end, written in self._recorded():
            if self._hash(self._done(), end) != written:
                _log.warning(
                    "the data kept in %s are damaged behind piece %d: made again from there; "
                    "the result is the same",
                    self._folder,
                    self._done(),
                )
                break
            self._segments.append((end, written))
        return self._done()

    def save(self, pieces: int) -> None:
        """Wait until all is on disk, then record it; called with ever more pieces."""
        # Data before the record: a record must never promise pieces that a power cut took.
        flush(self._arrays)
        if pieces > self._done():
            # Read back while it is still in memory.
            self._segments.append((pieces, self._hash(self._done(), pieces)))
        record = step_path(self._folder, pieces)
        if record.is_dir():
            remove(record)
        write_checked(record, self._segments)
        for path in steps(self._folder).values():
            if path != record:
                remove(path)

    def clear(self) -> None:
        """Remove the record: all is done, and the file is about to move."""
        for path in steps(self._folder).values():
            remove(path)

    def _done(self) -> int:
        return self._segments[-1][0] if self._segments else 0

    def _hash(self, start: int, stop: int) -> str:
        digest = hashlib.sha256()
        for number in range(start, stop):
            for part in self._piece(number):
                digest.update(part.tobytes())
        return digest.hexdigest()

    def _recorded(self) -> list[tuple[int, str]]:
        """Read the newest record; empty if it is damaged."""
        for record in reversed(steps(self._folder).values()):
            try:
                return [(int(end), str(written)) for end, written in read_checked(record)]
            except Damaged as damaged:
                _log.warning("%s: %s; what it tells of is made again", self._folder, damaged)
        return []


def _header(tensors: Mapping[str, tuple[str, Shape]]) -> bytes:
    described, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = offset + _bytes(dtype, shape)
        described[name] = {
            "dtype": _DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(dtype: str, shape: Shape) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def _holds(path: Path, header: bytes, size: int) -> bool:
    """Tell whether a file exists with that header and size."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header
