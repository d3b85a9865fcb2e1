"""Splits, conversions, batches and crops against known answers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from gigatok.config import SplitConfig
from gigatok.config.kinds.data_sets import find_data_set
from gigatok.data.crops import random_crop
from gigatok.data.image_sets import Images, read_ahead, resize
from gigatok.data.splits import (
    batch_crops,
    batch_flips,
    batch_indices,
    crop_views,
    load_split,
    to_uint8,
    to_unit_range,
    training_batch,
)
from gigatok.runtime.context import Ranks


def digits(split: str, images: int, image_size: int = 8) -> SplitConfig:
    return SplitConfig(name="digits", split=split, image_size=image_size, images=images)


def test_digits_splits_partition_the_data() -> None:
    train, val = load_split(digits("train", 1437)), load_split(digits("val", 360))
    together = np.concatenate([train.images, val.images])[..., 0].reshape(1797, -1)
    from sklearn.datasets import load_digits

    original = (load_digits().data * 255 // 16).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, original))
    assert np.bincount(val.labels, minlength=10).min() > 20
    assert train.num_classes == 10


def test_a_smaller_split_is_a_prefix() -> None:
    many, few = load_split(digits("train", 100, 16)), load_split(digits("train", 10, 16))
    assert few.images.shape == (10, 16, 16, 3)
    assert few.images.dtype == np.uint8
    np.testing.assert_array_equal(many.images[:10], few.images)
    np.testing.assert_array_equal(many.labels[:10], few.labels)


def test_asking_for_too_many_images_says_how_many_there_are() -> None:
    with pytest.raises(ValueError, match=r"361 images asked of the val split of digits, .* 360"):
        load_split(digits("val", 361))


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"pip install 'gigatok-scaling\[digits\]'"):
        load_split(digits("val", 1))


@pytest.mark.heavy
def test_the_digits_are_read_without_importing_scikit_learn() -> None:
    # Every stage of a smoke sweep that reads images would pay a second for it.
    code = (
        "import sys; from gigatok.config import SplitConfig;"
        "from gigatok.data.splits import load_split;"
        "split = SplitConfig(name='digits', split='val', image_size=8, images=2);"
        "print(len(load_split(split)), {'sklearn', 'scipy', 'pandas'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout == "2 set()\n", output.stderr


def test_fingerprints_are_constants_of_known_sets() -> None:
    assert all(len(find_data_set(name).fingerprint) == 64 for name in ("digits", "cifar10"))
    with pytest.raises(ValueError, match="no data set 'cifar'; there are cifar10, digits"):
        find_data_set("cifar")


def test_every_byte_survives_the_round_trip() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    x = to_unit_range(images)
    assert x.shape == (1, 3, 16, 16)
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(x), images)


def test_to_uint8_clamps_and_truncates() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 0.999 / 127.5, 1.0, 3.0]).reshape(1, 1, 1, 6)
    assert to_uint8(x.expand(1, 3, 1, 6))[0, 0, :, 0].tolist() == [0, 0, 128, 128, 255, 255]


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    later_first = [batch_indices(3, step, 5, 17) for step in (9, 0, 4)]
    again = [batch_indices(3, step, 5, 17) for step in (0, 4, 9)]
    np.testing.assert_array_equal(later_first[0], again[2])
    np.testing.assert_array_equal(later_first[1], again[0])
    assert not np.array_equal(again[0], batch_indices(4, 0, 5, 17))


def test_every_epoch_holds_every_image_once_in_a_fresh_order() -> None:
    stream = np.concatenate([batch_indices(0, step, 5, 17) for step in range(17)])
    epochs = stream.reshape(5, 17)
    assert (np.sort(epochs, axis=1) == np.arange(17)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_a_batch_larger_than_the_data_wraps() -> None:
    counts = np.bincount(batch_indices(0, 2, 10, 4), minlength=4)
    assert counts.sum() == 10
    assert set(counts) <= {2, 3}


def test_flips_are_pure_fair_and_independent_of_the_order() -> None:
    flips = np.stack([batch_flips(7, step, 64) for step in range(200)])
    np.testing.assert_array_equal(flips[150], batch_flips(7, 150, 64))
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(flips.size)
    assert len({row.tobytes() for row in flips}) == 200


def ramp() -> np.ndarray:
    """Two images whose red is the row, green the column, blue 10 or 20."""
    rows, columns = np.mgrid[:20, :20] * 10
    images = [np.stack([rows, columns, np.full_like(rows, blue)], -1) for blue in (10, 20)]
    return np.stack(images).astype(np.uint8)


def ramps() -> Images:
    return Images(ramp(), np.array([0, 1]), 2, 20)


BOTH = np.arange(2)


def test_one_crop_is_the_image_and_its_mirror() -> None:
    views = crop_views(ramps(), BOTH, 20, 1, flip=True)
    assert views.shape == (2, 2, 20, 20, 3)
    np.testing.assert_array_equal(views[0], ramp())
    np.testing.assert_array_equal(views[1], ramp()[:, :, ::-1])
    assert crop_views(ramps(), BOTH[1:], 20, 1, flip=False).shape == (1, 1, 20, 20, 3)


def test_five_crops_are_the_corners_and_centre_of_the_enlarged_image() -> None:
    views = crop_views(ramps(), BOTH, 20, 5, flip=True)
    large = resize(ramp(), 22)
    assert views.shape == (10, 2, 20, 20, 3)
    for view, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]):
        expected = large[:, top : top + 20, left : left + 20]
        np.testing.assert_array_equal(views[view], expected)
        mirrored = large[:, :, ::-1][:, top : top + 20, left : left + 20]
        np.testing.assert_array_equal(views[5 + view], mirrored)
    centre = views[4, 0].astype(float)
    assert np.allclose(np.diff(centre[5:15, 10, 0]), 10 / 1.1, atol=1)


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_parts_of_a_training_batch_are_the_batch(augment: str) -> None:
    images = load_split(digits("train", 40, 16))
    whole = training_batch(images, 16, augment, 1, 5, 12, slice(0, 12))
    for rank in range(3):
        part = Ranks(rank, 3).share(12)
        mine = training_batch(images, 16, augment, 1, 5, 12, part)
        for values, expected in zip(mine, whole, strict=True):
            np.testing.assert_array_equal(values, expected[part])


def test_augmented_pixels_are_the_crop_then_the_mirror() -> None:
    images = load_split(digits("train", 40, 16))
    pixels, indices, flips = training_batch(images, 16, "crop_flip", 1, 5, 12, slice(0, 12))
    draws = batch_crops(1, 5, 12)
    assert set(flips.tolist()) == {False, True}
    for i in range(12):
        crop = random_crop(images.originals[indices[i]], 16, draws[i])
        np.testing.assert_array_equal(pixels[i], crop[:, ::-1] if flips[i] else crop)
    plain = training_batch(images, 16, "none", 1, 5, 12, slice(0, 12))
    np.testing.assert_array_equal(plain[0], images.images[indices])
    assert not plain[2].any()


def test_reading_ahead_keeps_the_order_and_reads_one_item_early() -> None:
    read: list[int] = []

    def square(number: int) -> int:
        read.append(number)
        return number**2

    squares = read_ahead(square, range(5))
    assert next(squares) == 0
    assert set(read) <= {0, 1}
    assert list(squares) == [1, 4, 9, 16]
    assert list(read_ahead(square, [])) == []


def test_an_error_while_reading_ahead_reaches_the_reader() -> None:
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda n: 1 // n, [1, 0]))
