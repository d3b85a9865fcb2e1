"""Order, splits and classes depend on the content of the images alone."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gigatok.data.folder.arrangement import Arrangement, arrange
from gigatok.data.folder.index import ContentIndex, read_index
from tests.gigatok.own_images import CLASSES, Picture, pictures, png, write_folders


def arranged(path: Path, val_fraction: float = 0.2) -> tuple[ContentIndex, Arrangement]:
    listing, index = read_index(path)
    return index, arrange(path, listing, index, val_fraction)


def contents(index: ContentIndex, rows: np.ndarray) -> list[bytes]:
    return [bytes(digest) for digest in index.digests[rows]]


def tiny(number: int) -> bytes:
    return png(np.full((2, 2), number, np.uint8))


def renamed(images: list[Picture], names: list[int]) -> list[Picture]:
    return [
        Picture(f"{name:03}.png", image.label, image.content)
        for name, image in zip(names, images, strict=True)
    ]


@pytest.mark.heavy
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_names_and_order_of_files_do_not_matter(data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 3), min_size=5, max_size=25))
    images = [Picture("", label, tiny(i)) for i, label in enumerate(labels)]
    fraction = data.draw(st.sampled_from([0.2, 0.4]))
    found = []
    for turn in range(2):
        names = data.draw(st.permutations(range(len(images))))
        with tempfile.TemporaryDirectory() as folder:
            root = write_folders(Path(folder) / str(turn), renamed(images, names))
            try:
                index, one = arranged(root, fraction)
            except ValueError as error:
                found.append(str(error).replace(str(root), ""))
                continue
            splits = (contents(index, one.train), contents(index, one.val))
            found.append((one.classes, *splits, one.labels[one.train].tolist()))
            assert set(one.labels[one.train]) == set(range(len(one.classes)))
            assert len(one.train) + len(one.val) == len(images)
    assert found[0] == found[1]


def test_a_fraction_validates_and_every_class_still_trains(tmp_path: Path) -> None:
    images = [*pictures(60, classes=2), *(Picture("one.png", 5, tiny(i)) for i in range(1))]
    index, one = arranged(write_folders(tmp_path / "set", images), 0.9)
    assert one.classes == (CLASSES[0], CLASSES[1], CLASSES[5])
    assert set(one.labels[one.train]) == {0, 1, 2}
    assert len(index) == 61
    assert len(one.val) in (54, 55)


def test_a_new_image_moves_at_most_one_other_to_another_split(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(50))
    index, one = arranged(root)
    before = set(contents(index, one.val))
    (root / CLASSES[0] / "new.png").write_bytes(tiny(77))
    index, one = arranged(root)
    assert len(before - set(contents(index, one.val))) <= 1


def test_one_pixel_changes_only_the_content_of_its_split(tmp_path: Path) -> None:
    root = tmp_path / "set"
    images = [Picture(f"{i}.png", i % 3, tiny(i)) for i in range(30)]
    write_folders(root / "train", images[:24])
    write_folders(root / "val", images[24:])
    index, one = arranged(root)
    before = one.content(index, one.train), one.content(index, one.val)
    picture = Image.new("L", (2, 2), 29)
    picture.putpixel((1, 1), 30)
    picture.save(next((root / "val" / CLASSES[2]).glob("29.png")))
    index, one = arranged(root)
    assert one.content(index, one.train) == before[0]
    assert one.content(index, one.val) != before[1]


def test_a_wrapper_folder_is_no_class(tmp_path: Path) -> None:
    write_folders(tmp_path / "set" / "birds-1.0" / "images", pictures(14))
    _, one = arranged(tmp_path / "set")
    assert one.classes == CLASSES


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(21))
    (root / CLASSES[0] / "more").mkdir()
    (root / CLASSES[0] / "more" / "1.png").write_bytes(tiny(1))
    _, one = arranged(root)
    assert one.classes == CLASSES
    assert np.bincount(one.labels).tolist() == [4, 3, 3, 3, 3, 3, 3]


def test_classes_without_training_images_are_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_folders(root / "train", pictures(14))
    write_folders(root / "val", pictures(14, seed=1))
    (root / "val" / "hen").mkdir()
    (root / "val" / "hen" / "1.png").write_bytes(tiny(1))
    shutil.rmtree(root / "train" / CLASSES[2])
    (root / "train" / CLASSES[2]).mkdir()
    with pytest.raises(ValueError, match="2 classes without images in train: cat, hen; add"):
        arranged(root)


def test_an_empty_folder_beside_classes_is_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(14))
    (root / "annotations").mkdir()
    with pytest.raises(ValueError, match="1 classes without images in train: annotations"):
        arranged(root)


def test_loose_images_beside_classes_are_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(14))
    (root / "loose.png").write_bytes(tiny(1))
    with pytest.raises(ValueError, match="1 images do not lie in the folder of a class but 14 do"):
        arranged(root)


def test_too_few_images_for_two_splits_are_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(2, classes=1))
    with pytest.raises(ValueError, match="has 2 images, which leaves none for val"):
        arranged(root)


def test_equal_images_of_two_classes_are_in_the_order_of_their_classes(tmp_path: Path) -> None:
    images = [Picture(f"{i}.png", i % 2, tiny(i // 2)) for i in range(20)]
    _, one = arranged(write_folders(tmp_path / "set", images))
    assert one.labels[one.train].tolist() == [0, 1] * 8


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_copies_of_an_image_are_on_one_side(tmp_path: Path, fraction: float) -> None:
    images = [Picture(f"{i}.png", i % 2, tiny(i // 5)) for i in range(50)]
    index, one = arranged(write_folders(tmp_path / "set", images), fraction)
    assert not set(contents(index, one.train)) & set(contents(index, one.val))
    assert set(one.labels[one.train]) == {0, 1}


def test_images_beside_the_splits_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, count in (("train", 21), ("val", 14), ("test", 7)):
        write_folders(root / split, pictures(count))
    index, one = arranged(root)
    assert (len(index), len(one.train), len(one.val)) == (42, 21, 14)
