"""Containers that a large image set comes in: class folders, tar shards and parquet.

Each lists its files, indexes them once (place and class of each image), and reads single images by
that index. An index is arrays: about 60 bytes an image, 80 MB for ImageNet. Hidden files are part
of none: macOS leaves `._NAME` beside each NAME, and `.DS_Store` in folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gigatok.data.archives.parquet import bytes_reader, leaves, open_parquet
from gigatok.data.archives.tars import Sample, list_samples, read_member

Int64 = npt.NDArray[np.int64]
Names = npt.NDArray[np.bytes_]
Read = Callable[[int], bytes]
Row = tuple[str, int, tuple[int, int], int]
"""Name of an image, number of its file, place inside the file, class."""

SYNSET = re.compile(r"n\d{8}$")
_WHOLE_NUMBER = re.compile(rb"\s*-?[0-9]+\s*")
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
_ALIASES = {"train": ("train",), "val": ("val", "validation")}
"""Names of the splits in file names."""


@dataclass(frozen=True)
class Index:
    """Place of each image of a split, in the container's order.

    Attributes:
        names: names of the images, (N,): the file's in class folders, elsewhere without a suffix.
        files: number of the file that each image is in, (N,).
        places: place inside the file, (N, 2): offset and length in a tar, row group and row in
            parquet; unused for class folders, whose "file" is the folder of the class.
        labels: class of each image, (N,).
    """

    names: Names
    files: Int64
    places: Int64
    labels: Int64


@dataclass(frozen=True)
class Container:
    """Container: one way to store images.

    Attributes:
        layout: description for messages.
        find: lists its files (or class folders) of a split under a root, sorted; may be empty.
        rows: yields the images of one of those files, given its number.
        reader: makes the function that returns the encoded bytes of image i of an index.
    """

    layout: str
    find: Callable[[Path, str], list[Path]]
    rows: Callable[[Path, int], Iterable[Row]]
    reader: Callable[[list[Path], Index], Read]


def build_index(container: Container, files: list[Path]) -> Index:
    """Index all files; the rows of only one are held as Python objects at a time.

    Raises:
        ValueError: a file is not what the container expects, or all are empty.
    """
    parts = [
        _as_index(rows)
        for number, path in enumerate(files)
        if (rows := list(container.rows(path, number)))
    ]
    if not parts:
        raise ValueError(f"no images in {files[0]} and {len(files) - 1} more like it")
    return Index(
        np.concatenate([part.names for part in parts]),
        np.concatenate([part.files for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def _as_index(rows: list[Row]) -> Index:
    names, files, places, labels = zip(*rows, strict=True)
    return Index(
        # Bytes of one length take a quarter of the memory of NumPy's Unicode.
        np.array([name.encode() for name in names]),
        np.array(files, np.int64),
        np.array(places, np.int64),
        np.array(labels, np.int64),
    )


# Class folders


def _find_class_folders(root: Path, split: str) -> list[Path]:
    for alias in _ALIASES[split]:
        found = [p for p in _entries(root / alias) if SYNSET.match(p.name) and p.is_dir()]
        if found:
            return found
    return []


def _class_folder_rows(folder: Path, number: int) -> Iterable[Row]:
    """Yield the images of one class; its number is the rank of its sorted synset, as elsewhere."""
    return ((path.name, number, (0, 0), number) for path in _entries(folder) if is_image(path))


def _read_class_folders(folders: list[Path], index: Index) -> Read:
    def read(i: int) -> bytes:
        name: bytes = index.names[i]
        folder: Path = folders[index.files[i]]
        return (folder / name.decode()).read_bytes()

    return read


# WebDataset shards


def _find_shards(root: Path, split: str, suffix: str) -> list[Path]:
    """Find files with the split in their name, in the root or `data`, or all in its folder."""
    for alias in _ALIASES[split]:
        part = f"*{alias}*{suffix}"
        for folder, pattern in ((root, part), (root / "data", part), (root / alias, f"*{suffix}")):
            if found := [path for path in sorted(folder.glob(pattern)) if not _hidden(path.name)]:
                return found
    return []


def _find_tars(root: Path, split: str) -> list[Path]:
    """Find shards, but not the release's own archives, which may lie beside the shards."""
    found = _find_shards(root, split, ".tar")
    return [path for path in found if not path.name.startswith("ILSVRC2012_img_")]


def _tar_rows(path: Path, number: int) -> Iterator[Row]:
    """List the samples of a shard: an image and its `.cls` share folder and name up to the dot.

    Raises:
        ValueError: an image has no class, or the shard is compressed and so not seekable.
    """
    samples = list_samples(path, _is_sample)
    unlabelled = [f"{s.folder}/{s.name}".lstrip("/") for s in samples if s.label is None]
    if unlabelled:
        example = min(unlabelled)
        raise ValueError(
            f"{path}: {len(unlabelled)} images without .cls, such as {example}; add a member "
            f"{example}.cls that holds the number of the class"
        )
    return (
        (_tar_name(s.folder, s.name), number, s.place, _class_number(s, path)) for s in samples
    )


def _is_sample(member: str) -> bool:
    """Tell an image by all that follows the first dot: `a.seg.png` is something else of `a`."""
    file = member.rpartition("/")[2]
    return f".{file.partition('.')[2].lower()}" in _IMAGE_SUFFIXES and not _hidden(file)


def _class_number(sample: Sample, path: Path) -> int:
    assert sample.label is not None, "unlabelled images are refused"
    if not _WHOLE_NUMBER.fullmatch(sample.label):
        raise ValueError(
            f"{path}: {sample.name}.cls holds {sample.label[:20]!r}; a .cls holds the number of "
            "the class, from 0, and nothing else"
        )
    return int(sample.label)


def _tar_name(folder: str, name: str) -> str:
    """Name a sample, after its class's folder if the name does not tell the class itself."""
    parent = folder.rpartition("/")[2]
    return f"{parent}/{name}" if SYNSET.match(parent) and not name.startswith(parent) else name


def _read_tars(shards: list[Path], index: Index) -> Read:
    return lambda i: read_member(shards[index.files[i]], index.places[i].tolist())


# Hugging Face parquet


def _find_parquet(root: Path, split: str) -> list[Path]:
    return _find_shards(root, split, ".parquet")


def _parquet_rows(path: Path, number: int) -> Iterator[Row]:
    """Yield the rows of one file: `image` with `bytes` and `path`, and `label`, without pixels.

    Raises:
        ValueError: the file is not parquet, has other columns, or a row has no class.
    """
    file = open_parquet(path)
    columns = leaves(file)
    if not {"image.bytes", "label"} <= columns:
        raise ValueError(
            f"{path} has columns {', '.join(sorted(columns))}; an image set needs image.bytes "
            "and label, as Hugging Face's datasets write them: store each image as a struct of "
            "bytes and path"
        )
    # Without the column of bytes: reading it would load all pixels.
    wanted = ["label", *({"image.path"} & columns)]
    for group in range(file.num_row_groups):
        values = file.read_row_group(group, wanted).to_pydict()
        paths = values.get("image", [None] * len(values["label"]))
        for row, (label, image) in enumerate(zip(values["label"], paths, strict=True)):
            if not isinstance(label, int):
                raise ValueError(
                    f"{path}: the label of row {row} of row group {group} is {label!r}; every row "
                    "needs the number of its class, from 0"
                )
            name = Path((image or {}).get("path") or f"{path.stem}-{group}-{row}").stem
            yield name, number, (group, row), label


def _read_parquet(files: list[Path], index: Index) -> Read:
    read = bytes_reader(files, "image.bytes")
    return lambda i: read(int(index.files[i]), *index.places[i].tolist())


def _entries(folder: Path) -> list[Path]:
    """List what a folder holds except hidden files, sorted; empty if there is no such folder."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inside if not _hidden(path.name))


def is_image(path: Path) -> bool:
    """Tell an image by its name; hidden files do not count."""
    return path.suffix.lower() in _IMAGE_SUFFIXES and not _hidden(path.name)


def _hidden(name: str) -> bool:
    return name.startswith(".")


CONTAINERS: dict[str, Container] = {
    "class folders": Container(
        "{split}/n########/*.JPEG",
        _find_class_folders,
        _class_folder_rows,
        _read_class_folders,
    ),
    "WebDataset shards": Container(
        "*{split}*.tar or {split}/*.tar, with .jpg and .cls for each image",
        _find_tars,
        _tar_rows,
        _read_tars,
    ),
    "parquet": Container(
        "*{split}*.parquet or data/*{split}*.parquet, with columns image and label",
        _find_parquet,
        _parquet_rows,
        _read_parquet,
    ),
}
"""Name, as messages use it -> container."""
