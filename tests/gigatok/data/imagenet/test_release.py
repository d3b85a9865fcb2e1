"""ImageNet's three containers on a tiny release: same images, same order, clear refusals."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gigatok.config.kinds.data_sets import find_data_set
from gigatok.data.crops import center_crop, random_crop
from gigatok.data.image_sets import decode
from gigatok.data.imagenet import release
from gigatok.data.imagenet.release import load
from gigatok.data.splits import load_split, training_batch
from tests.gigatok.tiny_imagenet import (
    TINY,
    WRITERS,
    Sample,
    add,
    encoded,
    split_of,
    train_samples,
    val_samples,
    write_folders,
    write_tars,
)

PUBLISHED = release.ILSVRC2012


@pytest.fixture(autouse=True)
def _tiny_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "ILSVRC2012", TINY)
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=sorted(WRITERS))
def source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    root = tmp_path / request.param
    WRITERS[request.param](root, "train", train_samples())
    WRITERS[request.param](root, "val", val_samples())
    monkeypatch.setenv("GIGATOK_IMAGENET", str(root))
    return root


def test_the_fingerprint_names_the_counts_that_are_checked() -> None:
    train, val = PUBLISHED.parts["train"], PUBLISHED.parts["val"]
    expected = f"{train.images} train, {val.images} val, {PUBLISHED.classes} classes"
    assert find_data_set("imagenet").fingerprint == f"ILSVRC2012: {expected}"
    assert train.fewest * 1000 < train.images < train.most * 1000
    assert val.fewest * 1000 == val.images == val.most * 1000


def test_every_container_gives_the_same_images_in_the_same_order(source: Path) -> None:
    by_name = sorted(train_samples(), key=lambda sample: (sample[2], sample[0]))
    order = np.random.default_rng(0).permutation(16)
    train = load_split(split_of("train", 16))
    assert train.num_classes == 4
    assert train.labels.tolist() == [by_name[i][2] for i in order]
    expected = np.stack([center_crop(decode(by_name[i][1]), 16) for i in order])
    np.testing.assert_array_equal(train.centred(np.arange(16)), expected)


def test_the_validation_split_is_found_and_prefixes_are_prefixes(source: Path) -> None:
    all_val, two = load_split(split_of("val", 4)), load_split(split_of("val", 2))
    assert sorted(all_val.labels.tolist()) == [0, 1, 2, 3]
    assert len(two) == 2
    np.testing.assert_array_equal(two.centred(np.arange(2)), all_val.centred(np.arange(2)))


def test_random_crops_are_of_the_original_and_in_the_order_asked_for(source: Path) -> None:
    train = load_split(split_of("train", 16))
    indices = np.array([7, 0, 7, 15, 3])
    draws = np.random.default_rng(0).random((5, 3))
    originals = [train.cropped(np.array([i]), lambda image, _: image)[0] for i in indices]
    crops = train.cropped(indices, lambda image, i: random_crop(image, 16, draws[i]))
    for i, original in enumerate(originals):
        np.testing.assert_array_equal(crops[i], random_crop(original, 16, draws[i]))


def test_batches_do_not_depend_on_the_number_of_threads(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    for threads in (1, 7):
        monkeypatch.setattr("gigatok.data.image_sets.DECODERS", threads)
        train = load_split(split_of("train", 16))
        batches.append(training_batch(train, 16, "crop_flip", 3, 2, 10, slice(0, 10))[0])
    np.testing.assert_array_equal(*batches)


def test_the_index_is_read_once_and_again_when_the_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "source"
    write_tars(root, "train", train_samples())
    monkeypatch.setenv("GIGATOK_IMAGENET", str(root))
    load(split_of("train", 16))
    (cached,) = (tmp_path / "cache" / "imagenet").glob("*.npz")
    written = cached.stat().st_mtime_ns
    load(split_of("train", 5))
    assert cached.stat().st_mtime_ns == written
    write_tars(root, "train", train_samples()[:-1])
    with pytest.raises(ValueError, match="15 images, expected 16"):
        load(split_of("train", 5))


def test_without_the_variable_the_message_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GIGATOK_IMAGENET", raising=False)
    with pytest.raises(ValueError, match=r"needs GIGATOK_IMAGENET: .*class folders \(train/n#"):
        load_split(split_of("train", 1))
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere, which is not a folder"):
        load_split(split_of("train", 1))


def test_a_folder_of_something_else_is_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    with pytest.raises(ValueError, match=r"found notes.txt, train/; allowed: class folders"):
        load_split(split_of("train", 1))


def test_two_containers_in_one_folder_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_folders(tmp_path, "train", train_samples())
    write_tars(tmp_path, "train", train_samples())
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    with pytest.raises(ValueError, match=r"class folders \(n00000001.* and WebDataset shards"):
        load_split(split_of("train", 1))


def test_the_releases_archives_beside_its_folders_are_not_shards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As torchvision leaves them."""
    write_folders(tmp_path, "train", train_samples())
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"")
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    assert len(load_split(split_of("train", 16))) == 16


def test_an_image_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    samples = train_samples()
    (name, content, label), *rest = samples
    write_folders(tmp_path, "train", [(name, content[:60], label), *rest])
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    images = load_split(split_of("train", 16))
    with pytest.raises(ValueError, match=rf"image {name}.JPEG in .*n00000001 cannot be read: "):
        images.centred(np.arange(16))


def relabelled(samples: list[Sample], labels: dict[int, int]) -> list[Sample]:
    return [(name, content, labels.get(label, label)) for name, content, label in samples]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (train_samples()[1:], "15 images, expected 16; 2 images of class 0, expected 3 to 5"),
        (relabelled(train_samples(), {1: 2, 2: 1}), "not numbered in the order of their synsets"),
        (relabelled(train_samples(), {3: 4}), "class 4, expected 0 to 3"),
        (
            [(name.replace("n00000001", "n00000000"), *rest) for name, *rest in train_samples()],
            "synsets from n00000000 to n00000004, expected n00000001 to n00000004",
        ),
    ],
)
def test_what_is_not_the_release_is_refused(
    samples: list[Sample], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tars(tmp_path / "source", "train", samples)
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path / "source"))
    with pytest.raises(ValueError, match=message):
        load_split(split_of("train", 1))


def test_asking_for_more_images_than_the_release_has(source: Path) -> None:
    with pytest.raises(ValueError, match="17 images asked of the train split of imagenet"):
        load_split(split_of("train", 17))


def test_shards_that_cannot_be_read_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    write_tars(tmp_path, "train", train_samples(), "w:gz")
    with pytest.raises(ValueError, match=r"train-0000.tar is not an uncompressed tar"):
        load_split(split_of("train", 1))
    with tarfile.open(tmp_path / "train-0000.tar", "w") as shard:
        add(shard, "lonely.jpg", encoded(0))
    with pytest.raises(ValueError, match=r"1 images without .cls, such as lonely"):
        load_split(split_of("train", 1))


def test_hidden_files_are_no_part_of_any_container(source: Path) -> None:
    """macOS leaves `._NAME` beside each NAME of a folder, of a share and in archives."""
    for file in list(source.rglob("*")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\26\7")
        file.with_name(".DS_Store").touch()
    for shard in source.glob("train-*.tar"):
        with tarfile.open(shard, "a") as archive:
            add(archive, "._n00000001_0.jpg", b"\0\5\26\7")
            add(archive, "._n00000001_0.cls", b"\0\5\26\7")
    assert load_split(split_of("train", 16)).centred(np.arange(16)).shape == (16, 16, 16, 3)


def test_samples_of_a_shard_are_told_apart_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        for name, content, label in train_samples():
            synset, _, number = name.partition("_")
            add(shard, f"train/{synset}/{number}.jpg", content)
            add(shard, f"train/{synset}/{number}.CLS", f"{label}\n".encode())
    images = load_split(split_of("train", 16))
    assert np.bincount(images.labels).tolist() == [3, 4, 5, 4]
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        for name, content, label in train_samples():
            synset, _, number = name.partition("_")
            add(shard, f"{synset}/{number}.jpg", content)
            add(shard, f"{synset}/{number}.cls", str((label + 1) % 4).encode())
    with pytest.raises(ValueError, match=r"order of their synsets: n00000001 is class 1"):
        load_split(split_of("train", 16))


@pytest.mark.parametrize("content", [b"[0]", b"", b"n00000001", b"0.0", b"\xff", b"1_0"])
def test_a_class_that_is_no_number_is_named(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        add(shard, "a.jpg", encoded(0))
        add(shard, "a.cls", content)
    with pytest.raises(
        ValueError, match=r"train-0\.tar: a\.cls holds b'.*; a \.cls holds the num"
    ):
        load_split(split_of("train", 1))


def write_rows(path: Path, images: list[bytes | None], labels: list[object]) -> None:
    rows = [{"bytes": content, "path": None} for content in images]
    pq.write_table(pa.table({"image": rows, "label": labels}), path)


@pytest.mark.parametrize("label", [None, "n00000001", 0.5])
def test_a_row_without_a_class_is_named(
    label: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    write_rows(tmp_path / "train-0.parquet", [encoded(0)], [label])
    with pytest.raises(
        ValueError, match=r"train-0\.parquet: the label of row 0 of row group 0 is"
    ):
        load_split(split_of("train", 1))
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"train-0\.parquet is no parquet file"):
        load_split(split_of("train", 1))


def test_an_image_without_bytes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    samples = train_samples()
    contents = [None, *(content for _, content, _ in samples[1:])]
    write_rows(tmp_path / "train-0.parquet", contents, [label for *_, label in samples])
    with pytest.raises(
        ValueError, match=r"train-0-0-0 in .*train-0\.parquet cannot be read: it is"
    ):
        load_split(split_of("train", 16)).centred(np.arange(16))


def test_likely_mistakes_bring_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    kaggle = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_folders(kaggle, "train", train_samples())
    with pytest.raises(ValueError, match=rf"set GIGATOK_IMAGENET to {kaggle}; allowed"):
        load_split(split_of("train", 1))
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(encoded(0))
    with pytest.raises(ValueError, match=r"val holds 1 images that are in no class's folder: mov"):
        load_split(split_of("val", 1))
    write_tars(tmp_path, "train", [(n, c, label + 1) for n, c, label in train_samples()])
    with pytest.raises(ValueError, match=r"classes are counted from 1; count them from 0"):
        load_split(split_of("train", 1))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 255, 256], [0x7FFF, 0x8000, 0xFFFF]], np.uint16)
    assert decode(png(grey))[:, :, 1].tolist() == [[0, 0, 1], [127, 128, 255]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<html>", "6 bytes that are no image"),
        (encoded(0)[:200], "(?i)truncated|no image"),
    ],
)
def test_what_cannot_be_decoded_says_why(content: bytes, message: str) -> None:
    with pytest.raises(Exception, match=message):
        decode(content)


def test_parquet_with_other_columns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path))
    pq.write_table(pa.table({"picture": [b"x"], "label": [1]}), tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match=r"has columns label, picture; .* needs image.bytes"):
        load_split(split_of("train", 1))
