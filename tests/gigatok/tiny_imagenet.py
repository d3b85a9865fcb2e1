"""A release of sixteen images in four classes, in each container that ImageNet comes in."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gigatok.config import SplitConfig
from gigatok.data.imagenet.release import Release, SplitFacts

SYNSETS = [f"n0000000{i}" for i in range(1, 5)]
PER_CLASS = [3, 4, 5, 4]
TINY = Release(
    4, SYNSETS[0], SYNSETS[-1], {"train": SplitFacts(16, 3, 5), "val": SplitFacts(4, 1, 1)}
)
Sample = tuple[str, bytes, int]
"""(name, encoded image, class)."""


def encoded(seed: int, mode: str = "RGB") -> bytes:
    """A JPEG of a random size, grey or colour."""
    random = np.random.default_rng(seed)
    height, width = random.integers(24, 60, size=2)
    small = random.integers(256, size=(4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def train_samples() -> list[Sample]:
    numbered = ((label, i) for label, count in enumerate(PER_CLASS) for i in range(count))
    return [
        (f"{SYNSETS[label]}_{i}", encoded(10 * label + i, "L" if i == 2 else "RGB"), label)
        for label, i in numbered
    ]


def val_samples() -> list[Sample]:
    return [(f"ILSVRC2012_val_0000000{i}", encoded(100 + i), (3 * i) % 4) for i in range(4)]


def write_folders(root: Path, split: str, samples: list[Sample]) -> None:
    for name, content, label in samples:
        folder = root / split / SYNSETS[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.JPEG").write_bytes(content)


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def write_tars(root: Path, split: str, samples: list[Sample], mode: str = "w") -> None:
    shuffled = [samples[i] for i in np.random.default_rng(1).permutation(len(samples))]
    root.mkdir(exist_ok=True)
    for number in range(3):
        with tarfile.open(root / f"{split}-{number:04}.tar", mode) as shard:
            for name, content, label in shuffled[number::3]:
                add(shard, f"{name}.cls", str(label).encode())
                add(shard, f"{name}.jpg", content)


def write_parquet(root: Path, split: str, samples: list[Sample]) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    name_of = {"train": "train", "val": "validation"}[split]
    shuffled = [samples[i] for i in np.random.default_rng(2).permutation(len(samples))]
    for number in range(2):
        rows = shuffled[number::2]
        table = pa.table(
            {
                "image": [
                    {"bytes": content, "path": f"{name}_{SYNSETS[label]}.JPEG"}
                    for name, content, label in rows
                ],
                "label": pa.array([label for _, _, label in rows], pa.int64()),
            }
        )
        path = root / "data" / f"{name_of}-{number:05}-of-00002.parquet"
        pq.write_table(table, path, row_group_size=3)


WRITERS = {"folders": write_folders, "tars": write_tars, "parquet": write_parquet}


def split_of(split: str, images: int, side: int = 16) -> SplitConfig:
    return SplitConfig(name="imagenet", split=split, image_size=side, images=images)
