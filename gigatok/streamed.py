"""A safetensors file whose tensors are filled piece by piece, without holding them in memory.

The format is public (https://github.com/huggingface/safetensors): the length of a JSON header in
eight bytes, little-endian, the header, then the tensors one after the other. Any safetensors
reader reads the finished file, and maps it into memory instead of loading it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Shape = tuple[int, ...]

_DTYPES = {"int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "float32": "F32"}
_ALIGNMENT = 8


def open_streamed(path: Path, tensors: Mapping[str, tuple[str, Shape]]) -> Arrays:
    """Arrays by name that live in a file; what is written to them is in the file.

    The file is made, full of zeros, unless it is there already with the same tensors: then the
    arrays hold what was written before.

    Args:
        path: of the file.
        tensors: dtype and shape of each tensor, in the order of the file.
    """
    header = _header(tensors)
    size = len(header) + sum(_bytes(dtype, shape) for dtype, shape in tensors.values())
    if not _holds(path, header, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(header)
            file.truncate(size)
    arrays: Arrays = {}
    offset = len(header)
    for name, (dtype, shape) in tensors.items():
        arrays[name] = np.memmap(path, dtype, "r+", offset, shape)
        offset += _bytes(dtype, shape)
    return arrays


def flush(arrays: Arrays) -> None:
    """Wait until what was written is on disk."""
    for array in arrays.values():
        assert isinstance(array, np.memmap)
        array.flush()


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
    """Whether a file is there with that header and of that size."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header
