"""Files that several processes read and write: replaced as a whole, or under a lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from gigatok.files.durable import sync

LOCK_POLL_SECONDS = 0.02


def write_atomic(path: Path, text: str, durable: bool = True, private: bool = False) -> None:
    """Replace a file so that readers see the old or the new content, never a part.

    A folder or link that lies in its place is set aside.

    Args:
        path: the file.
        text: its new content.
        durable: whether it must survive a power cut once this returns.
        private: only the user may read it, from the first byte on.
    """
    temporary = _written_beside(path, text, durable, private)
    try:
        temporary.replace(path)
    except IsADirectoryError:
        set_aside(path)
        temporary.replace(path)
    if durable:
        sync(path.parent)


def create_atomic(path: Path, text: str) -> None:
    """Create a file with its whole content, durably; never replaces one.

    Raises:
        FileExistsError: there is something of that name.
    """
    temporary = _written_beside(path, text, durable=True)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links; then the lock that callers hold has to do.
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def set_aside(path: Path) -> Path:
    """Rename what cannot be used, so that nothing is lost and its place is free."""
    aside = path.with_name(f".{path.name}.aside-{uuid.uuid4().hex[:8]}")
    path.rename(aside)
    return aside


def remove(path: Path) -> None:
    """Remove a file, a link (never what it leads to) or a folder; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, break_after: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file; it falls with the process.

    Args:
        path: the lock file.
        break_after: seconds after which a lock is broken whose holder does nothing, such as a
            stopped process: what it guards must hold without it. None: wait for ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path, break_after):
        yield


def _lock(path: Path, break_after: float | None) -> TextIO:
    """Open and lock a file; the lock lasts until it is closed."""
    started = time.monotonic()
    while True:
        file = path.open("a", encoding="utf-8")
        if _try_lock(file, wait=break_after is None):
            # Whoever broke the lock put another file in its place: that one counts.
            if _is_same(file, path):
                return file
        elif break_after is not None and time.monotonic() - started > break_after:
            _replace_lock(file, path)
            started = time.monotonic()
        else:
            time.sleep(LOCK_POLL_SECONDS)
        file.close()


def _try_lock(file: TextIO, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_same(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _replace_lock(file: TextIO, path: Path) -> None:
    """Put a new lock file in place of one that is held; of several who try, one is enough."""
    if _is_same(file, path):
        fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        fresh.touch()
        fresh.replace(path)


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


def _written_beside(path: Path, text: str, durable: bool, private: bool = False) -> Path:
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
    return temporary
