"""Single images out of tar files, by their offsets: WebDataset's shards, or any tar."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Place = tuple[int, int]
"""Offset and length of a member's content."""


@dataclass(frozen=True)
class Sample:
    """Image of a tar.

    Attributes:
        folder: folder of the member, as the tar has it; "" at its top.
        file: name of the member without its folder.
        place: where its content is.
        label: content of the `.cls` of the same name; None: there is none.
    """

    folder: str
    file: str
    place: Place
    label: bytes | None

    @property
    def name(self) -> str:
        """Name of the sample: up to the first dot, which an image and its `.cls` share."""
        return self.file.partition(".")[0]


def list_samples(path: Path, is_image: Callable[[str], bool]) -> list[Sample]:
    """List the images of a tar in its order, each with its class if it has one.

    Args:
        path: the tar.
        is_image: tells an image by the path of its member; other members than `.cls` are skipped.

    Raises:
        ValueError: the tar is compressed, and so not seekable, or is no tar.
    """
    # An image and its class may stand in any order, so both are collected first.
    images: dict[tuple[str, str], Place] = {}
    labels: dict[tuple[str, str], bytes] = {}
    try:
        # "r:" refuses compression: images are read by their byte offsets.
        with tarfile.open(path, "r:") as shard:
            for member in filter(tarfile.TarInfo.isreg, shard):
                folder, _, file = member.name.rpartition("/")
                if is_image(member.name):
                    images[folder, file] = member.offset_data, member.size
                elif file.lower().endswith(".cls") and not file.startswith("."):
                    content = shard.extractfile(member)
                    assert content is not None, f"{member.name} is a file"
                    labels[folder, file[: -len(".cls")]] = content.read()
    except tarfile.ReadError as error:
        raise ValueError(
            f"{path} is not an uncompressed tar: {error}; unpack it, or copy it again"
        ) from error
    return [
        Sample(folder, file, place, _label(labels, folder, file))
        for (folder, file), place in images.items()
    ]


def _label(labels: Mapping[tuple[str, str], bytes], folder: str, file: str) -> bytes | None:
    # `a.seg.jpg` belongs to `a.cls`, but `IMG.1.jpg` to `IMG.1.cls` if there is one.
    exact, first = file.rpartition(".")[0], file.partition(".")[0]
    return labels.get((folder, exact), labels.get((folder, first)))


def read_member(path: Path, place: Sequence[int]) -> bytes:
    """Read the content of a member at its place; safe in several threads."""
    offset, length = place
    with path.open("rb") as shard:
        # `pread` has no file position that threads could move under each other.
        return os.pread(shard.fileno(), length, offset)
