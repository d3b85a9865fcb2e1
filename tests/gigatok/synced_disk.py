"""A model of a power cut: what a disk holds if nothing survives but what was flushed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

Names = dict[str, tuple[int, bool]]
"""Name in a folder -> inode, and whether that is a folder."""


class SyncedDisk:
    """Keeps files and folders as they were when `os.fsync` was last called for them.

    Args:
        root: folder that is looked at.
        names_survive: names are on the disk at once, as if a journal had been written by chance,
            and only the content of files needs a flush.
        monkeypatch: puts the model in the place of `os.fsync`.
        before_flush: called before each flush takes effect.
    """

    def __init__(
        self,
        root: Path,
        names_survive: bool,
        monkeypatch: pytest.MonkeyPatch,
        before_flush: Callable[[], object],
    ) -> None:
        self._root, self._names_survive, self._before = root, names_survive, before_flush
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, Names] = {}
        self._held: list[int] = []
        # A tree is flushed by several threads, and a copy must not be taken while one changes it.
        self._turns = threading.Lock()
        monkeypatch.setattr(os, "fsync", self._fsync)

    def leave(self, target: Path) -> None:
        """Copy what the disk would hold after a power cut now."""
        self._leave(self._root.stat().st_ino, self._root, target)

    def close(self) -> None:
        """Forget all."""
        for descriptor in self._held:
            os.close(descriptor)

    def _fsync(self, descriptor: int) -> None:
        with self._turns:
            self._before()
            self._flush(descriptor)

    def _flush(self, descriptor: int) -> None:
        # Held open, or the number of a removed inode would be given to another file.
        self._held.append(os.dup(descriptor))
        state, path = os.fstat(descriptor), Path(f"/proc/self/fd/{descriptor}")
        if stat.S_ISDIR(state.st_mode):
            self._folders[state.st_ino] = _names(path)
        else:
            self._files[state.st_ino] = path.read_bytes()

    def _leave(self, inode: int, path: Path, target: Path) -> None:
        target.mkdir()
        names = self._folders.get(inode, {})
        if self._names_survive:
            names = _names(path) if path.exists() else {}
        for name, (child, is_folder) in names.items():
            if is_folder:
                self._leave(child, path / name, target / name)
            else:
                (target / name).write_bytes(self._files.get(child, b""))


def _names(folder: Path) -> Names:
    with os.scandir(folder) as entries:
        return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}
