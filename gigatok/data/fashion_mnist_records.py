"""Fashion-MNIST from any of its containers, as one file of records.

A record is one label byte and 784 pixel bytes, row by row; the 60,000 training records come before
the 10,000 of the test set, both in the order of the release
(https://github.com/zalandoresearch/fashion-mnist). Xiao, Rasul and Vollgraf, 2017.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Read = Callable[[str], bytes]
"""Function that returns the content of a file of the release, decompressed."""

SIDE = 28
RECORD = 1 + SIDE * SIDE
TRAIN, VAL = 60_000, 10_000
NUM_CLASSES = 10
# Bytes before the data of an idx file: a magic number and one size per dimension, 4 bytes each.
_LABELS_HEAD, _IMAGES_HEAD = 8, 16
# An ar archive begins with a magic line; before each member are 60 bytes, its size in ASCII
# among them.
_AR_MAGIC, _AR_HEAD, _AR_SIZE = b"!<arch>\n", 60, slice(48, 58)


def write_records(source: Path, target: Path) -> None:
    """Write all 70,000 records, training images first.

    Args:
        source: a tar of the authors' repository, Debian's package `dataset-fashion-mnist` (.deb),
            or a folder with the four idx files, compressed or not, such as `FashionMNIST/raw`.
        target: file to write, 54,950,000 bytes.

    Raises:
        ValueError: the source is none of these.
        KeyError: an archive lacks a file.
    """
    if source.is_dir():
        read: Read = _reader_of_folder(source)
    elif source.suffix == ".deb":
        read = _reader_of_tar(_data_of_deb(source.read_bytes()))
    else:
        read = _reader_of_tar(source.read_bytes())
    with target.open("wb") as file:
        for split in ("train", "t10k"):
            labels = np.frombuffer(read(f"{split}-labels-idx1-ubyte"), np.uint8)[_LABELS_HEAD:]
            pixels = np.frombuffer(read(f"{split}-images-idx3-ubyte"), np.uint8)[_IMAGES_HEAD:]
            images = pixels.reshape(len(labels), RECORD - 1)
            file.write(np.concatenate([labels[:, None], images], axis=1).tobytes())


def read_records(path: Path, start: int, count: int) -> tuple[Bytes, Bytes]:
    """Read images (count, 28, 28) and labels (count,) of consecutive records."""
    # Mapped: a stage that reads a thousand images does not load all 70,000.
    records = np.memmap(path, np.uint8, "r", shape=(TRAIN + VAL, RECORD))[start : start + count]
    return np.array(records[:, 1:]).reshape(-1, SIDE, SIDE), np.array(records[:, 0])


def _reader_of_folder(folder: Path) -> Read:
    def read(name: str) -> bytes:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                content = path.read_bytes()
                return gzip.decompress(content) if path.suffix == ".gz" else content
        raise ValueError(f"{folder} holds neither {name} nor {name}.gz")

    return read


def _reader_of_tar(content: bytes) -> Read:
    def read(name: str) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # The folders above depend on who packed it.
            found = {Path(member.name).name: member for member in archive}
            file = archive.extractfile(found[f"{name}.gz"])
            assert file is not None, f"{name} is a file"
            return gzip.decompress(file.read())

    return read


def _data_of_deb(content: bytes) -> bytes:
    """Take the tar of the installed files out of a Debian package, which is an ar archive."""
    if not content.startswith(_AR_MAGIC):
        raise ValueError("it is no Debian package")
    start = len(_AR_MAGIC)
    while start < len(content):
        head = content[start : start + _AR_HEAD]
        start += _AR_HEAD
        size = int(head[_AR_SIZE])
        if head.startswith(b"data.tar"):
            return content[start : start + size]
        start += size + size % 2  # members begin at even places
    raise KeyError("data.tar")
