"""The same images in any container are the same set: key, pixels, order, classes."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gigatok.config import DataConfig, FoundImages, SplitConfig
from gigatok.config.data import split_config
from gigatok.data.image_sets import ImageSet
from gigatok.data.splits import load_split
from tests.gigatok.own_images import (
    WRITERS,
    pictures,
    squares,
    write_flat,
    write_folders,
    write_npz,
    write_parquet,
    write_shards,
)
from tests.gigatok.tiny_imagenet import add

COUNT = 42


def data_of(path: Path, train: int = 20, val: int = 5) -> DataConfig:
    values = {"name": "folder", "path": str(path), "image_size": 16}
    return DataConfig.model_validate({**values, "train_images": train, "val_images": val})


def found_in(path: Path) -> FoundImages:
    found = data_of(path, 1, 1).found
    assert found is not None
    return found


def splits_of(path: Path) -> list[tuple[SplitConfig, ImageSet]]:
    data = data_of(path)
    configs = split_config(data, "train", 20, True), split_config(data, "val", 5, True)
    return [(config, load_split(config)) for config in configs]


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_every_container_gives_the_same_pixels_in_the_same_order(
    tmp_path: Path, writer: str
) -> None:
    images = pictures(COUNT)
    expected = splits_of(write_folders(tmp_path / "expected", images))
    found = splits_of(WRITERS[writer](tmp_path / "found", images[::-1]))
    for (config, mine), (other_config, other) in zip(found, expected, strict=True):
        assert config.identity == other_config.identity
        assert mine.num_classes == other.num_classes == 7
        np.testing.assert_array_equal(mine.labels, other.labels)
        everything = np.arange(len(mine))
        np.testing.assert_array_equal(mine.centred(everything), other.centred(everything))


def test_arrays_are_the_same_as_the_files_that_they_were_made_of(tmp_path: Path) -> None:
    arrays = found_in(write_npz(tmp_path / "arrays", squares(21)))
    assert arrays.identity == found_in(write_folders(tmp_path / "files", squares(21))).identity


def test_a_flat_folder_has_one_class_and_the_same_pixels(tmp_path: Path) -> None:
    flat = found_in(write_flat(tmp_path / "flat", pictures(COUNT)))
    classes = found_in(write_folders(tmp_path / "classes", pictures(COUNT)))
    assert flat.num_classes == 1
    assert flat.train.content == classes.train.content
    assert flat.train.labels != classes.train.labels


def test_shards_and_parquet_without_classes_have_one(tmp_path: Path) -> None:
    images = pictures(COUNT)
    with tarfile.open(tmp_path / "plain.tar", "w") as shard:
        for image in images:
            add(shard, image.name, image.content)
    table = pa.table({"picture": pa.array([i.content for i in images], pa.binary())})
    pq.write_table(table, tmp_path / "plain.parquet")
    flat = found_in(write_flat(tmp_path / "flat", images))
    assert found_in(tmp_path / "plain.tar").identity == flat.identity
    assert found_in(tmp_path / "plain.parquet").identity == flat.identity


def test_names_of_classes_are_numbers_or_words(tmp_path: Path) -> None:
    images = pictures(COUNT)
    table = pa.table(
        {
            "image": pa.array([image.content for image in images], pa.binary()),
            "label": [str(10 + image.label) for image in images],  # 10 to 16, from text
        }
    )
    pq.write_table(table, tmp_path / "text.parquet")
    numbered = found_in(write_parquet(tmp_path / "numbered", images))
    assert found_in(tmp_path / "text.parquet").identity == numbered.identity


def test_whole_numbers_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / "set" / str(number)).mkdir(parents=True)
        for copy in range(4):
            pixels = np.full((4, 4), 20 * number + copy, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / str(number) / f"{copy}.png")
    data = data_of(tmp_path / "set")
    train = load_split(split_config(data, "train", 20, True))
    values = train.centred(np.arange(20))[:, 0, 0, 0]
    assert train.labels.tolist() == (values // 20).tolist()


@pytest.mark.parametrize("name", ["val", "validation", "test"])
@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_splits_of_their_own_are_kept(tmp_path: Path, writer: str, name: str) -> None:
    images, root = pictures(COUNT), tmp_path / "set"
    WRITERS[writer](root / "train", images[:28])
    WRITERS[writer](root / name, images[28:])
    found = found_in(root)
    assert (found.train.images, found.val.images, found.num_classes) == (28, 14, 7)
    assert "splits of their own" in found.layout


def test_archives_are_split_by_their_names(tmp_path: Path) -> None:
    images, root = pictures(COUNT), tmp_path / "set"
    root.mkdir()
    for split, part in (("train", images[:28]), ("validation", images[28:])):
        table = pa.table(
            {
                "image": [{"bytes": image.content, "path": None} for image in part],
                "label": [image.label for image in part],
            }
        )
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
    assert (found_in(root).train.images, found_in(root).val.images) == (28, 14)


def test_an_npz_may_hold_both_splits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(14, 5, 5), dtype=np.uint8)
    labels = np.arange(14)[:, None] % 2
    parts = {"train_images": pixels[:10], "train_labels": labels[:10]}
    parts |= {"val_images": pixels[10:], "val_labels": labels[10:]}
    np.savez(tmp_path / "medical.npz", **parts)
    found = found_in(tmp_path / "medical.npz")
    assert (found.train.images, found.val.images, found.num_classes) == (10, 4, 2)


def test_images_with_dots_in_their_names_keep_their_own_class(tmp_path: Path) -> None:
    images = pictures(COUNT)
    with tarfile.open(tmp_path / "dots.tar", "w") as shard:
        for i, image in enumerate(images):
            add(shard, f"IMG.{i}.{image.name.rpartition('.')[2]}", image.content)
            add(shard, f"IMG.{i}.cls", str(image.label).encode())
    whole = found_in(write_shards(tmp_path / "whole", images))
    assert found_in(tmp_path / "dots.tar").identity == whole.identity


Write = Callable[[Path], object]


def _parquet(**columns: object) -> Write:
    return lambda path: pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("x.tar", lambda p: p.write_bytes(b"x" * 600), "not an uncompressed tar"),
        ("x.parquet", lambda p: p.write_bytes(b"x" * 600), "no parquet file"),
        ("x.npz", lambda p: p.write_bytes(b"x" * 600), "no readable .npz"),
        ("x.parquet", _parquet(a=[1]), "columns are a; the images must be in a binary column"),
        ("x.parquet", _parquet(a=[b"1"], b=[b"2"]), "binary column `image`"),
        ("x.parquet", _parquet(image=[b"1"], label=[0.5]), "has label 0.5; every row needs"),
        ("x.npz", lambda p: np.savez(p, pictures=np.zeros(3)), "needs an array `images`"),
        ("x.npz", lambda p: np.savez(p, images=np.zeros((2, 3, 3))), "are float64"),
        ("x.npz", lambda p: np.savez(p, images=np.zeros((2, 3, 9, 9), np.uint8)), "colours"),
        (
            "x.npz",
            lambda p: np.savez(p, images=np.zeros((2, 3, 3), np.uint8), labels=np.zeros(3, int)),
            "one for each of the 2 images",
        ),
    ],
)
def test_archives_of_something_else_are_refused(
    tmp_path: Path, name: str, write: Write, message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        found_in(tmp_path / name)
