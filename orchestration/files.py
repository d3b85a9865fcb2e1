"""Files that several processes read and write: replaced as a whole, or under a lock."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, text: str, durable: bool = True, private: bool = False) -> None:
    """Replace a file so that readers see the old or the new content, never a part.

    Args:
        path: the file.
        text: its new content.
        durable: whether it must survive a power cut once this returns.
        private: only the user may read it, from the first byte on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    # Records are UTF-8 whatever the locale; a lone surrogate, as in the name of a file that is no
    # text, must not stop a record from being written.
    mode = 0o600 if private else 0o666  # less what the umask takes
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it falls with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cut_torn_line(path: Path) -> None:
    """Drop a last line that a killed process did not finish: the next would be joined to it."""
    with path.open("rb+") as lines:
        content = lines.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            lines.truncate(end)


def read_if_there(path: Path) -> bytes | None:
    """The content of a file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
