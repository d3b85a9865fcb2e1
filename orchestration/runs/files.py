"""Files that several processes share: replaced as a whole, or changed under a lock."""

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


def write_atomic(
    path: Path, text: str, durable: bool = True, private: bool = False, flush_name: bool = True
) -> None:
    """Replace a file so that readers see the old or the new content, never a part of it.

    A folder or a link in the file's place is renamed out of the way.

    Args:
        path: the file.
        text: its new content.
        durable: whether it must survive a power cut once this returns.
        private: only the user may read it, from the first byte on.
        flush_name: False: after a power cut it may be the old content, as a whole.
    """
    temporary = _written_beside(path, text, durable, private)
    try:
        temporary.replace(path)
    except IsADirectoryError:
        set_aside(path)
        temporary.replace(path)
    # The rename is durable only once the folder that holds the name has been flushed.
    if durable and flush_name:
        sync(path.parent)


def create_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Create a file with its whole content, and never replace an existing one.

    Args:
        path: the file.
        text: its content.
        durable: whether it must survive a power cut once this returns.

    Raises:
        FileExistsError: something of that name exists already.
    """
    temporary = _written_beside(path, text, durable)
    try:
        # Unlike a rename, a hard link fails if the name exists, even between two machines on one
        # shared file system. So exactly one of several writers succeeds.
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # File system without hard links: here only the lock that callers hold excludes a race.
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def set_aside(path: Path) -> Path:
    """Rename a file or folder that cannot be used: its place is free, and nothing is lost."""
    aside = path.with_name(f".{path.name}.aside-{uuid.uuid4().hex[:8]}")
    path.rename(aside)
    return aside


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not its target; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, break_after: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel drops it when the process ends.

    Args:
        path: the lock file.
        break_after: seconds after which the lock is broken if its holder has not released it, for
            example a stopped process. The guarded code must then stay correct without the lock.
            None: wait for ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path, break_after):
        yield


def _lock(path: Path, break_after: float | None) -> TextIO:
    """Open and lock a file; the lock lasts until the file is closed."""
    started = time.monotonic()
    while True:
        file = path.open("a", encoding="utf-8")
        if _try_lock(file, wait=break_after is None):
            # A waiter that breaks the lock puts a new file in its place. A lock on the old file
            # then excludes nobody, so only a lock on the file that has the name now counts.
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
    """Put a new lock file in place of one that is held too long."""
    # Another waiter may have replaced it already; replacing that one again would drop its lock.
    if _is_same(file, path):
        fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        fresh.touch()
        fresh.replace(path)


class Busy(RuntimeError):
    """Lock that another process or thread holds: it is doing the same thing right now."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file without waiting for it; the lock ends with the process.

    Raises:
        Busy: another process or thread holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        # flock and not a file that exists: the kernel releases it however the process ends.
        if not _try_lock(file, wait=False):
            raise Busy(f"another launcher holds {path.name}")
        yield


def cut_torn_line(path: Path) -> None:
    """Drop an unfinished last line, which a killed process left: the next append would join it."""
    with path.open("rb+") as lines:
        content = lines.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            lines.truncate(end)


def read_if_there(path: Path) -> bytes | None:
    """Read the content of a file; None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _written_beside(path: Path, text: str, durable: bool, private: bool = False) -> Path:
    # Pid and random part: writers on machines that share the folder never meet in one name. The
    # leading dot hides a half-written file from every glob for records.
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
