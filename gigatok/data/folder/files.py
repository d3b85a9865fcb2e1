"""Files below a path that a user names: single images, or archives of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["folders", "tar", "parquet", "npz"]
State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
}
_KINDS: dict[str, Kind] = {".tar": "tar", ".parquet": "parquet", ".npz": "npz"}
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
"""Suffixes of archives that cannot be read in place."""
_SHOWN = 8


@dataclass(frozen=True)
class FileListing:
    """Files that hold the images, without what is hidden.

    Attributes:
        root: folder that paths are relative to.
        kind: kind of all files.
        files: path relative to `root` -> state; sorted.
        empty: folders without any image below them, relative to `root`.
        left_out: suffix -> number of files that are no images.
    """

    root: Path
    kind: Kind
    files: dict[str, State]
    empty: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def is_hidden(name: str) -> bool:
    """Tell names that are no data: macOS leaves `._NAME`, `.DS_Store` and `__MACOSX` behind."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(member: str) -> bool:
    """Tell an image by a path inside a folder or archive; nothing hidden is one."""
    parts = [part for part in member.split("/") if part not in (".", "..", "")]
    suffix = os.path.splitext(member)[1].lower()
    return suffix in IMAGE_SUFFIXES and not any(map(is_hidden, parts))


def list_files(path: Path) -> FileListing:
    """List the files that hold the images at a path.

    Raises:
        ValueError: there is nothing at the path, or no images, or several kinds of files.
    """
    if not path.exists():
        raise ValueError(
            f"path {path}: no such file or folder (relative paths: from {Path.cwd()})"
        )
    if path.is_file():
        return _single(path)
    walk = _Walk(path)
    walk.visit("", frozenset())
    found = {kind: files for kind, files in walk.files.items() if files}
    if not found:
        allowed = "image files, folders of them, .tar, .parquet or .npz"
        raise ValueError(f"path {path} holds no images: {_seen(path)}; allowed are {allowed}")
    # Guessing would make results depend on which kind was looked for first.
    if len(found) > 1:
        both = " and ".join(f"{len(f)} × {_word(kind, f)}" for kind, f in found.items())
        raise ValueError(f"path {path} holds {both}; name a folder that holds one kind")
    ((kind, files),) = found.items()
    return FileListing(
        path, kind, dict(sorted(files.items())), tuple(walk.empty), dict(walk.left_out)
    )


def _single(path: Path) -> FileListing:
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        unpack = "; unpack it" if path.suffix.lower() in _PACKED else ""
        allowed = "a folder, or a file .tar, .parquet or .npz"
        raise ValueError(f"path {path} is a file; allowed are {allowed}{unpack}")
    return FileListing(path.parent, kind, {path.name: _state(path.stat())})


class _Walk:
    """Visit of a folder and all below it; links are followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[Kind, dict[str, State]] = {k: {} for k in ("folders", *_KINDS.values())}
        self.empty: list[str] = []
        self.left_out: Counter[str] = Counter()

    def visit(self, folder: str, above: frozenset[tuple[int, int]]) -> int:
        """Collect the files of a folder and those below it; returns their number."""
        state = os.stat(self.root / folder)
        here = (state.st_dev, state.st_ino)
        # A link to a folder above would lead round and round.
        if here in above:
            return 0
        count = 0
        for entry in self._entries(folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                below = self.visit(name, above | {here})
                self.empty += [] if below else [name]
                count += below
            else:
                count += self._add(name, entry)
        return count

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.root / folder) as entries:
                # All at once: an open folder per level would run out of file descriptors.
                return iter([entry for entry in entries if not is_hidden(entry.name)])
        except OSError as error:
            raise ValueError(f"path {self.root / folder}: {error.strerror}") from error

    def _add(self, name: str, entry: os.DirEntry[str]) -> int:
        suffix = os.path.splitext(name)[1].lower()
        kind: Kind | None = "folders" if suffix in IMAGE_SUFFIXES else _KINDS.get(suffix)
        if kind is None:
            self.left_out[suffix or "without suffix"] += 1
            return 0
        # Of a link that leads nowhere nothing is known; reading it will name it.
        self.files[kind][name] = _state(entry.stat()) if entry.is_file() else (0, 0)
        return 1


def _state(state: os.stat_result) -> State:
    return state.st_size, state.st_mtime_ns


def _word(kind: Kind, files: dict[str, State]) -> str:
    return "image files" if kind == "folders" else f".{kind} ({min(files)}, ...)"


def _seen(path: Path) -> str:
    """Say what is there instead, and the likely mistake."""
    inside = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
    if not inside:
        return "it is empty"
    more = ", ..." if len(inside) > _SHOWN else ""
    packed = [name for name in inside if name.lower().endswith(_PACKED)]
    hint = f"; unpack {packed[0]}" if packed else ""
    return f"found {', '.join(inside[:_SHOWN])}{more}{hint}"
