"""Tables that were read before, kept until the tracking store changes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars as pl

from analysis.store.interface import Stamp
from gigatok import names

ROWS_WORTH_KEEPING = 2000
"""Fewer are read again faster than anyone notices."""
WRITER = "writer of a table"
"""Name of the threads that write what is kept."""
_FORMAT = 3
"""Raised when the table's columns or their meaning change."""


def cache_folder() -> Path:
    """Find the folder of the cache: `$GIGATOK_CACHE/analysis`, or below `~/.cache/gigatok`."""
    root = os.environ.get("GIGATOK_CACHE") or Path.home() / ".cache" / "gigatok"
    return Path(root) / "analysis"


def remembered(
    stamp: Stamp | None, request: tuple[str | None, ...], read: Callable[[], pl.DataFrame]
) -> pl.DataFrame:
    """Return the table that was read when the store was in this state, else read it now.

    Args:
        stamp: state of the store; None: never keep anything.
        request: arguments of the read, which tell requests apart.
        read: reads the store. It may see a newer state than the stamp, never an older one.
    """
    if stamp is None:
        return read()
    store, state = stamp
    # Registered metrics are columns: a plug-in that adds one must not be given a table without it.
    request_hash = _hash(store, *request, _FORMAT, [*names.METRICS, *names.SIZES])
    file = cache_folder() / f"{request_hash}-{_hash(state)}.arrow"
    if file.is_file():
        try:
            return pl.read_ipc(file)
        except (OSError, pl.exceptions.PolarsError):
            pass  # Damaged: what it held is read again, and replaces it.
    # The stamp was taken before: a write in between makes the kept table newer than its name says,
    # and the next stamp differs anyway.
    table = read()
    if table.height >= ROWS_WORTH_KEEPING:
        # The reader need not wait for it. A process that ends does: the thread is no daemon. A
        # clone shares the data but not the columns, which the reader may add to.
        what = (table.clone(), file, request_hash)
        threading.Thread(target=_keep, args=what, name=WRITER).start()
    return table


def _keep(table: pl.DataFrame, file: Path, request_hash: str) -> None:
    """Replace what was kept of the same request."""
    with suppress(OSError):  # a cache that cannot be written costs the next reader some time
        file.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place when complete: others may read and write at the same moment.
        temporary = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        table.write_ipc(temporary)
        # Older states of the store never come back, so that one file a request is enough.
        for old in file.parent.glob(f"{request_hash}-*.arrow"):
            old.unlink(missing_ok=True)
        temporary.replace(file)


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
