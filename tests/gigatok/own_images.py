"""Images as users have them: any format, mode and size, in every container that is read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gigatok.data.folder.decoding import decode_upright
from tests.gigatok.tiny_imagenet import add

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@dataclass(frozen=True)
class Picture:
    """An encoded image with its name and class."""

    name: str
    label: int
    content: bytes


def _colours(random: np.random.Generator, label: int) -> Image.Image:
    """A smooth picture of a random size, whose colours tell its class."""
    height, width = random.integers(18, 48, size=2)
    small = random.integers(0, 120, size=(3, 3, 3)) + np.array([label * 18, 120 - label * 9, 60])
    picture = Image.fromarray(small.clip(0, 255).astype(np.uint8))
    return picture.resize((int(width), int(height)), Image.Resampling.BICUBIC)


def _encode(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "cmyk.jpg":
        picture.convert("CMYK").save(buffer, "JPEG")
    elif kind == "rotated.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn by 90 degrees
        picture.save(buffer, "JPEG", exif=exif)
    elif kind == "alpha.png":
        picture.putalpha(picture.convert("L"))
        picture.save(buffer, "PNG")
    elif kind == "palette.png":
        picture.quantize(16).save(buffer, "PNG")
    elif kind == "sixteen.png":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(buffer, "PNG")
    elif kind == "grey.jpeg":
        picture.convert("L").save(buffer, "JPEG")
    elif kind == "animated.gif":
        picture.save(buffer, "GIF", save_all=True, append_images=[picture.rotate(90)])
    else:
        picture.save(buffer, {"webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}[kind.split(".")[1]])
    return buffer.getvalue()


KINDS = (
    *("cmyk.jpg", "rotated.jpg", "alpha.png", "palette.png", "sixteen.png", "grey.jpeg"),
    *("animated.gif", "plain.webp", "plain.tiff", "plain.bmp"),
)
"""A mode or feature, and a format."""


def pictures(count: int, classes: int = len(CLASSES), seed: int = 0) -> list[Picture]:
    """Make pictures of all kinds, in classes of about equal size."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        label, kind = i % classes, KINDS[(i // classes) % len(KINDS)]
        stem, suffix = kind.split(".")
        content = _encode(_colours(random, label), kind)
        made.append(Picture(f"{stem}_{i:04}.{suffix}", label, content))
    return made


def png(pixels: np.ndarray) -> bytes:
    """Encode an array without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def squares(count: int, side: int = 9) -> list[Picture]:
    """Make pictures of one size in a format without loss, as arrays can hold them."""
    made = []
    for picture in pictures(count):
        pixels = Image.fromarray(decode_upright(picture.content)).resize((side, side))
        made.append(Picture(f"{picture.name}.png", picture.label, png(np.asarray(pixels))))
    return made


def write_folders(root: Path, images: Sequence[Picture]) -> Path:
    """Write a folder for each class."""
    for image in images:
        file = root / CLASSES[image.label] / image.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image.content)
    return root


def write_flat(root: Path, images: Sequence[Picture]) -> Path:
    """Write all images into one folder."""
    root.mkdir(parents=True)
    for image in images:
        (root / image.name).write_bytes(image.content)
    return root


def write_shards(root: Path, images: Sequence[Picture]) -> Path:
    """Write two shards as WebDataset does: an image and its class have one name."""
    root.mkdir(parents=True)
    for number in range(2):
        with tarfile.open(root / f"shard-{number}.tar", "w") as shard:
            for image in images[number::2][::-1]:
                add(shard, f"{Path(image.name).stem}.cls", str(image.label).encode())
                add(shard, image.name, image.content)
    return root


def write_packed(root: Path, images: Sequence[Picture]) -> Path:
    """Pack class folders into one tar, as `tar cf birds.tar birds` does."""
    root.mkdir(parents=True)
    with tarfile.open(root / "birds.tar", "w") as shard:
        for image in images:
            add(shard, f"birds/{CLASSES[image.label]}/{image.name}", image.content)
    return root / "birds.tar"


def write_parquet(root: Path, images: Sequence[Picture]) -> Path:
    """Write two files as Hugging Face's datasets do."""
    root.mkdir(parents=True)
    for number in range(2):
        part = images[number::2]
        table = pa.table(
            {
                "image": [{"bytes": image.content, "path": image.name} for image in part],
                "label": pa.array([image.label for image in part], pa.int64()),
            }
        )
        file = root / "data" / f"part-{number:05}-of-00002.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table, file, row_group_size=7)
    return root


WRITERS = {
    "folders": write_folders,
    "shards": write_shards,
    "packed": write_packed,
    "parquet": write_parquet,
}
"""Containers that hold encoded images of any size with their classes."""


def write_npz(root: Path, images: Sequence[Picture]) -> Path:
    """Write the decoded images, which must be of one size, as arrays."""
    root.mkdir(parents=True)
    pixels = np.stack([decode_upright(image.content) for image in images])
    labels = np.array([image.label for image in images])
    np.savez(root / "all.npz", images=pixels, labels=labels)
    return root / "all.npz"
