"""Single images out of parquet files, as Hugging Face's datasets write them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_CACHED_GROUPS = 4
"""Row groups that are kept decoded; some 10 to 100 MB each."""


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file.

    Raises:
        ValueError: it is no parquet file.
    """
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no parquet file: {error}; copy it again") from error


def leaves(file: pq.ParquetFile) -> set[str]:
    """Name the columns of a file; parts of a struct are columns, such as `image.bytes`."""
    return {file.schema.column(i).path for i in range(len(file.schema))}


def bytes_reader(files: Sequence[Path], column: str) -> Callable[[int, int, int], bytes]:
    """Make a function of file, row group and row that returns the bytes of a column there.

    Whole row groups are decoded, so other containers are faster.

    Args:
        files: the files, by number.
        column: a column of bytes, or a part of a struct such as `image.bytes`.
    """
    lock = threading.Lock()
    top, _, part = column.partition(".")

    @lru_cache(maxsize=_CACHED_GROUPS)
    def values(file: int, group: int) -> Any:
        table = pq.ParquetFile(files[file]).read_row_group(group, [column])
        array = table.column(top).combine_chunks()
        return array.field(part) if part else array

    def read(file: int, group: int, row: int) -> bytes:
        # `lru_cache` lets several threads decode one group at the same time, each 100 MB.
        with lock:
            content: bytes | None = values(file, group)[row].as_py()
        return content or b""

    return read
