"""The built-in data sets keep the contract, and it tells what a broken one does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from gigatok.config import SplitConfig
from gigatok.config.kinds.data_sets import DATA_SETS, DataSet
from gigatok.contracts.data_set import broken_promises, smoke
from gigatok.data.image_sets import Images, check_count

# Without ImageNet, which its users supply.
FETCHED = [pytest.param(name, marks=pytest.mark.network) for name in ("cifar10", "fashion_mnist")]


@pytest.mark.parametrize("name", ["digits", "folder", *FETCHED])
def test_the_built_in_data_sets_keep_it(name: str) -> None:
    assert broken_promises(DATA_SETS[name]) == []


def test_images_of_a_user_have_no_smoke_trial() -> None:
    assert smoke(DATA_SETS["folder"]) is None
    assert smoke(DATA_SETS["digits"]) is not None


behaviour = "sound"
"""What `load` below does wrong."""
_calls = itertools.count()


def load(config: SplitConfig) -> Images:
    """Make grey images, each of its own brightness."""
    if behaviour != "endless":
        check_count(config, 100)
    number = np.arange(min(config.images, 100)) + 100 * (config.split == "val")
    if behaviour == "shuffled":
        number = np.random.default_rng(next(_calls)).permutation(number)
    if behaviour == "overlapping":
        number %= 100
    if behaviour == "backwards":
        number = number[::-1].copy()
    pixels = np.broadcast_to(
        number[:, None, None, None].astype(np.uint8),
        (len(number), config.image_size, config.image_size, 3),
    )
    labels = number % 10 + 5 * (behaviour == "labels")
    if behaviour == "short":
        return Images(pixels[:-1], labels[:-1], 10, config.image_size)
    pixels = pixels / np.float32(255) if behaviour == "floats" else pixels
    return Images(pixels, labels, 10, config.image_size)  # type: ignore[arg-type]


@pytest.fixture
def data_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataSet]:
    data_set = DataSet("greys", 10, fingerprint="rule 1", module=__name__)
    DATA_SETS["greys"] = data_set
    yield data_set
    del DATA_SETS["greys"]


BROKEN = {
    "shuffled": "loaded twice, images or labels are others",
    "overlapping": "32 of the first 32 images to validate are among those to train",
    "backwards": "16 images are not the first of 32",
    "labels": "labels are int64 from 5 to 14; they must be whole numbers from 0 to 9",
    "short": "31 images and labels of shape (31,) where 32 were asked for",
    "floats": "an image is float32 (16, 16, 3); it must be uint8 (16, 16, 3)",
    "endless": "images were asked for without an error",
}


def test_a_sound_one_keeps_it(data_set: DataSet) -> None:
    assert broken_promises(data_set) == []


@pytest.mark.parametrize(("how", "text"), BROKEN.items())
def test_what_a_broken_one_does_is_said(
    data_set: DataSet, monkeypatch: pytest.MonkeyPatch, how: str, text: str
) -> None:
    monkeypatch.setattr(f"{__name__}.behaviour", how)
    found = broken_promises(data_set)
    assert any(text in line for line in found), found
    assert all(line.startswith("data set greys: ") for line in found)


def test_content_must_be_identified() -> None:
    found = broken_promises(DataSet("greys", 0, fingerprint="", module=__name__))
    assert any("its fingerprint is empty" in line for line in found)
    assert any("num_classes is 0" in line for line in found)
