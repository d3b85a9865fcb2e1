"""Ways to store images: each lists the images of a file, and reads single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gigatok.data.archives.tars import list_samples, read_member
from gigatok.data.crops import UInt8
from gigatok.data.folder.decoding import array_to_rgb, decode_upright
from gigatok.data.folder.files import Kind, is_image

Read = Callable[[int, int, int], UInt8]
"""Function of the number of a file and an image's place in it; returns RGB (H, W, 3)."""


class Row(NamedTuple):
    """Image of a file.

    Attributes:
        name: name inside the file; "" if the file is the image.
        place: where it is inside the file.
        folder: folder that it lies in, which may tell its split and its class.
        label: its class as text, where the file says so; "" where the folder tells it.
    """

    name: str
    place: tuple[int, int]
    folder: str
    label: str


@dataclass(frozen=True)
class ImageReader:
    """Kind of files that hold images.

    Attributes:
        rows: lists the images of a file, given also its path relative to the folder named.
        reader: makes the function that reads single images of some files.
    """

    rows: Callable[[Path, str], Iterable[Row]]
    reader: Callable[[Sequence[Path]], Read]


# Folders of image files


def _file_rows(path: Path, relative: str) -> Iterable[Row]:
    return [Row("", (0, 0), relative.rpartition("/")[0], "")]


def _file_reader(files: Sequence[Path]) -> Read:
    return lambda file, *_: decode_upright(files[file].read_bytes())


# Tar: WebDataset shards, or a folder that was packed


def _tar_rows(path: Path, relative: str) -> Iterator[Row]:
    for sample in list_samples(path, is_image):
        folder = "/".join(part for part in sample.folder.split("/") if part not in ("", "."))
        label = (sample.label or b"").decode(errors="replace").strip()
        yield Row(f"{folder}/{sample.file}".lstrip("/"), sample.place, folder, label)


def _tar_reader(files: Sequence[Path]) -> Read:
    return lambda file, *place: decode_upright(read_member(files[file], place))


# Parquet, as Hugging Face's datasets write it

_LABELS = ("label", "labels", "class", "cls")


def _parquet_rows(path: Path, relative: str) -> Iterator[Row]:
    from gigatok.data.archives.parquet import open_parquet

    file = open_parquet(path)
    _image_column(path)
    label = next((name for name in _LABELS if name in file.schema_arrow.names), None)
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        labels: Sequence[Any] = [""] * count
        if label is not None:
            labels = file.read_row_group(group, [label]).column(label).to_pylist()
        for row, value in enumerate(labels):
            if not isinstance(value, int | str) or isinstance(value, bool):
                raise ValueError(
                    f"row {row} of row group {group} has {label} {value!r}; every row needs a "
                    "whole number or a name"
                )
            yield Row(f"row {row} of row group {group}", (group, row), "", str(value))


def _parquet_reader(files: Sequence[Path]) -> Read:
    from gigatok.data.archives.parquet import bytes_reader

    column = _image_column(files[0])
    read = bytes_reader(files, column)
    return lambda file, group, row: decode_upright(read(file, group, row))


def _image_column(path: Path) -> str:
    """Find the column of encoded images: binary, or a struct with `bytes` as in `datasets`.

    Raises:
        ValueError: there is none, or several and none of them is called `image`.
    """
    # Imported late, as above: pyarrow takes a third of a second, and most folders need none.
    import pyarrow as pa

    from gigatok.data.archives.parquet import open_parquet

    schema = open_parquet(path).schema_arrow
    found = {}
    for column in schema:
        struct = pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0
        if struct or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            found[column.name] = f"{column.name}.bytes" if struct else column.name
    if len(found) == 1:
        return next(iter(found.values()))
    if "image" in found:
        return found["image"]
    raise ValueError(
        f"its columns are {', '.join(schema.names)}; the images must be in a binary column "
        "`image`, or in a struct `image` with `bytes`, as Hugging Face's datasets write them"
    )


# NumPy's .npz

_ARRAYS = ("images", "train_images", "val_images", "test_images")
"""Names of arrays of images; those of their labels say `labels` instead."""


def _npz_rows(path: Path, relative: str) -> Iterator[Row]:
    arrays = _npz_arrays(path)
    for number, name in enumerate(_ARRAYS):
        if name not in arrays:
            continue
        labels = _npz_labels(arrays, name)
        split = name.removesuffix("images").rstrip("_")
        for row, label in enumerate(labels):
            yield Row(f"{name}[{row}]", (number, row), split, label)


def _npz_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Load the arrays of images and labels, checked.

    Raises:
        ValueError: it is no `.npz`, or has no images, or arrays of another shape or type.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                name: file[name] for name in file.files if name.endswith(("images", "labels"))
            }
            names = file.files
    except (OSError, ValueError) as error:
        raise ValueError(f"it is no readable .npz of plain arrays: {error}") from error
    if not arrays.keys() & set(_ARRAYS):
        raise ValueError(f"it holds {', '.join(names) or 'nothing'}; it needs an array `images`")
    for name in arrays.keys() & set(_ARRAYS):
        images = arrays[name]
        colours = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
        if images.dtype not in (np.uint8, np.uint16) or not colours:
            raise ValueError(
                f"its {name} are {images.dtype} {images.shape}; allowed are uint8 or uint16 of "
                "shape (N, H, W), or (N, H, W, C) with 1, 3 or 4 colours"
            )
    return arrays


def _npz_labels(arrays: dict[str, npt.NDArray[Any]], name: str) -> list[str]:
    """Return the labels of an array of images as text; "" each where there are none."""
    images, labels = arrays[name], arrays.get(name.replace("images", "labels"))
    if labels is None:
        return [""] * len(images)
    if labels.size != len(images) or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"its labels are {labels.dtype} {labels.shape}; allowed are whole numbers or text, "
            f"one for each of the {len(images)} {name}"
        )
    return [str(label) for label in labels.ravel().tolist()]


def _npz_reader(files: Sequence[Path]) -> Read:
    # Decompressed as a whole: an .npz is for sets that fit into memory.
    arrays = [_npz_arrays(file) for file in files]
    return lambda file, number, row: array_to_rgb(arrays[file][_ARRAYS[number]][row])


CONTAINERS: dict[Kind, ImageReader] = {
    "folders": ImageReader(_file_rows, _file_reader),
    "tar": ImageReader(_tar_rows, _tar_reader),
    "parquet": ImageReader(_parquet_rows, _parquet_reader),
    "npz": ImageReader(_npz_rows, _npz_reader),
}
