"""Index of a user's images: place, digest and size of each, read once until its file changes.

A digest is of the decoded pixels. So the same image is the same in any container or format without
loss, and an image that cannot be decoded is found before anything trains. Decoding all of ImageNet
takes an hour or two of a core; the index is kept in the project's cache, and only files whose size
or time of change are new are read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from rich.console import Console
from rich.progress import Progress

from gigatok.data.assets import cache_to_write
from gigatok.data.crops import UInt8
from gigatok.data.folder.containers import CONTAINERS, Read, Row
from gigatok.data.folder.files import FileListing, list_files
from gigatok.data.image_sets import DECODERS, Int64
from gigatok.files.durable import write_durably

Texts = npt.NDArray[np.bytes_]

_VERSION = 1
"""Version of the index; raise it when the same files are indexed in another way."""
_BATCH = 2048
"""Images that are decoded between two updates of the display; no more than these are in flight."""
_SILENT = 1000
"""Images up to which no progress is shown: they take a few seconds."""
_NAMED = 20
"""Unreadable images that a message names."""


@dataclass(frozen=True)
class ContentIndex:
    """Facts about F files and the N images in them; images are in the order of the files.

    Attributes:
        files: path of each file relative to the folder, (F,).
        states: size and time of change of each file, (F, 2).
        file_of: number of the file of each image, (N,).
        places: place of each image inside its file, (N, 2).
        names: name of each image inside its file, (N,).
        folders: folder of each image, in the file system or in its archive, (N,).
        labels: class of each image as text, where its file says so, (N,).
        digests: sha256 of the pixels of each image, (N, 32).
        sizes: height and width of each image, (N, 2).
    """

    files: Texts
    states: Int64
    file_of: Int64
    places: Int64
    names: Texts
    folders: Texts
    labels: Texts
    digests: UInt8
    sizes: Int64

    def __len__(self) -> int:
        return len(self.file_of)

    def describe(self, row: int) -> str:
        """Say where a person finds an image."""
        return _describe(_text(self.files[self.file_of[row]]), _text(self.names[row]))


def read_index(path: Path) -> tuple[FileListing, ContentIndex]:
    """List the files at a path, and index the images in them; what is known is not read again.

    Raises:
        ValueError: there are no images, or some cannot be read; names them all, up to a limit.
    """
    listing = list_files(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    cached = cache_to_write("folder") / f"{name}.npz"
    # Eight processes of one stage would else each decode all images.
    with FileLock(cached.with_suffix(".lock")):
        known = _load(cached)
        if known is not None and _is_of(known, listing):
            return listing, known
        index, problems = _scan(listing, known)
        # Saved even if some cannot be read: once those are replaced, only they are read.
        write_durably(cached, lambda file: _save(file, index))
    if problems:
        raise ValueError(_unreadable(path, problems, len(index) + len(problems)))
    if not len(index):
        raise ValueError(f"path {path} holds no images in {len(listing.files)} files")
    return listing, index


def reader(listing: FileListing, index: ContentIndex) -> Read:
    """Make the function that reads single images of an index."""
    return CONTAINERS[listing.kind].reader([listing.root / _text(file) for file in index.files])


def _is_of(known: ContentIndex, listing: FileListing) -> bool:
    """Tell whether an index is of these files as they are now."""
    return known.files.tolist() == _encoded(listing.files).tolist() and np.array_equal(
        known.states, _states(listing.files.values())
    )


# Reading what is new


def _scan(listing: FileListing, known: ContentIndex | None) -> tuple[ContentIndex, list[str]]:
    """Index the files, and list those images that cannot be read; their files are left out."""
    old = known if known is not None else _empty()
    place = {name: number for number, name in enumerate(old.files.tolist())}
    kept: dict[str, int] = {}
    for name, state in listing.files.items():
        number = place.get(os.fsencode(name))
        if number is not None and tuple(old.states[number].tolist()) == state:
            kept[name] = number
    fresh = [name for name in listing.files if name not in kept]
    found, problems = _read_all(listing, fresh)
    good = [name for name in listing.files if name in kept or name in found]
    return _joined(listing, good, old, kept, found), problems


@dataclass(frozen=True)
class _Image:
    """Image that was read."""

    row: Row
    digest: bytes
    size: tuple[int, int]


def _read_all(
    listing: FileListing, names: Sequence[str]
) -> tuple[dict[str, list[_Image]], list[str]]:
    """Read the images of some files: file -> its images, and what cannot be read."""
    found: dict[str, list[_Image]] = {}
    problems: list[str] = []
    read = CONTAINERS[listing.kind].reader([listing.root / name for name in names])
    rows = _rows(listing, names, problems)
    with _progress(listing, names) as progress, ThreadPoolExecutor(DECODERS) as pool:
        task = progress.add_task("looking at the images", total=None)
        bad: set[str] = set()
        # In batches: the pool would otherwise queue all of a million images at once.
        while batch := list(islice(rows, _BATCH)):
            examined = pool.map(lambda item: _examine(read, item[0], item[1]), batch)
            for (number, row), image in zip(batch, examined, strict=True):
                name = names[number]
                if isinstance(image, _Image):
                    found.setdefault(name, []).append(image)
                else:
                    bad.add(name)
                    problems.append(f"{_describe(name, row.name)} ({image})")
            progress.update(task, advance=len(batch))
    # All images of a file or none: an index is asked for by files.
    return {name: images for name, images in found.items() if name not in bad}, problems


def _progress(listing: FileListing, names: Sequence[str]) -> Progress:
    # Archives hold any number of images.
    silent = listing.kind == "folders" and len(names) <= _SILENT
    return Progress(console=Console(stderr=True), transient=True, disable=silent)


def _rows(
    listing: FileListing, names: Sequence[str], problems: list[str]
) -> Iterator[tuple[int, Row]]:
    for number, name in enumerate(names):
        try:
            for row in CONTAINERS[listing.kind].rows(listing.root / name, name):
                yield number, row
        except Exception as error:  # arbitrary bytes make a reader raise whatever it will
            problems.append(f"{name} ({error})")


def _examine(read: Read, number: int, row: Row) -> _Image | str:
    try:
        pixels = read(number, *row.place)
    except Exception as error:  # arbitrary bytes make a decoder raise whatever it will
        return str(error) or type(error).__name__
    height, width, _ = pixels.shape
    digest = hashlib.sha256(f"{height} {width} ".encode())
    digest.update(pixels.tobytes())
    return _Image(row, digest.digest(), (height, width))


def _unreadable(path: Path, problems: Sequence[str], total: int) -> str:
    named = "".join(f"\n  {problem}" for problem in problems[:_NAMED])
    more = f"\n  … and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
    return (
        f"path {path}: {len(problems):,} of {total:,} images cannot be read; replace or remove "
        f"them:{named}{more}"
    )


def _describe(file: str, name: str) -> str:
    return f"{file}: {name}" if name else file


# Arrays


def _joined(
    listing: FileListing,
    names: Sequence[str],
    old: ContentIndex,
    kept: dict[str, int],
    found: dict[str, list[_Image]],
) -> ContentIndex:
    """Join the images of an older index that are kept with those that were read."""
    number = {name: i for i, name in enumerate(names)}
    # Old number of a file -> its new one; -1: it is not kept.
    moved = np.full(len(old.files) + 1, -1, np.int64)
    for name, i in kept.items():
        moved[i] = number[name]
    still = moved[old.file_of] >= 0
    images = [(number[name], image) for name, some in found.items() for image in some]
    new = _fresh(images)
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.concatenate([getattr(old, name)[still], column]) for name, column in new.items()
    }
    columns["file_of"] = np.concatenate([moved[old.file_of[still]], new["file_of"]])
    # Stable: images stay in the order of their file.
    order = np.argsort(columns["file_of"], kind="stable")
    states = _states([listing.files[name] for name in names])
    return ContentIndex(
        _encoded(names), states, **{n: column[order] for n, column in columns.items()}
    )


def _fresh(images: Sequence[tuple[int, _Image]]) -> dict[str, npt.NDArray[Any]]:
    digests = b"".join(image.digest for _, image in images)
    return {
        "file_of": np.array([number for number, _ in images], np.int64),
        "places": np.array([i.row.place for _, i in images], np.int64).reshape(-1, 2),
        "names": _encoded(image.row.name for _, image in images),
        "folders": _encoded(image.row.folder for _, image in images),
        "labels": _encoded(image.row.label for _, image in images),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, 32),
        "sizes": np.array([image.size for _, image in images], np.int64).reshape(-1, 2),
    }


def _empty() -> ContentIndex:
    return ContentIndex(_encoded([]), _states([]), **_fresh([]))


def _encoded(texts: Iterable[str]) -> Texts:
    # Bytes of one length take a quarter of the memory of NumPy's Unicode.
    return np.array([os.fsencode(text) for text in texts], np.bytes_)


def _states(states: Iterable[tuple[int, int]]) -> Int64:
    return np.array(list(states), np.int64).reshape(-1, 2)


def _text(value: Any) -> str:
    return os.fsdecode(value)


def _save(path: Path, index: ContentIndex) -> None:
    with path.open("wb") as file:
        np.savez(file, version=_VERSION, **vars(index))


def _load(path: Path) -> ContentIndex | None:
    """Read an index; None if there is none, or it is damaged or of another version."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = dict(arrays)
        return ContentIndex(**values) if values.pop("version") == _VERSION else None
    except Exception:  # a cache that cannot be read is made again
        return None
