"""A split is loaded as it was planned, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gigatok.config import SplitConfig
from gigatok.config.data import split_config
from gigatok.data.crops import center_crop, random_crop
from gigatok.data.folder import loading
from gigatok.data.folder.decoding import decode_upright
from gigatok.data.splits import load_split, training_batch
from tests.gigatok.data.folder.test_containers import data_of
from tests.gigatok.own_images import pictures, write_flat, write_folders


def train_of(path: Path, *, labels: bool = True, images: int = 30) -> SplitConfig:
    return split_config(data_of(path), "train", images, labels)


@pytest.mark.parametrize("kept_bytes", [2**28, 0])
def test_images_are_cropped_from_their_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    monkeypatch.setattr(loading, "_KEPT_BYTES", kept_bytes)
    images = pictures(42)
    train = load_split(train_of(write_flat(tmp_path / "set", images)))
    known = {center_crop(decode_upright(i.content), 16).tobytes(): i for i in images}
    rows = np.array([3, 0, 3, 29])
    for number, view in zip(rows, train.centred(rows), strict=True):
        original = decode_upright(known[view.tobytes()].content)
        crop = train.cropped(np.array([number]), lambda o, _: random_crop(o, 16, [0.3, 0.5, 0.9]))
        np.testing.assert_array_equal(crop[0], random_crop(original, 16, [0.3, 0.5, 0.9]))


def test_a_batch_is_a_pure_function_of_seed_and_step(tmp_path: Path) -> None:
    config = train_of(write_folders(tmp_path / "set", pictures(42)))
    (tmp_path / "cache").rename(tmp_path / "old")
    one, two = (
        training_batch(load_split(config), 16, "crop_flip", 1, 7, 8, slice(0, 8)) for _ in range(2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_images_are_the_first_of_all(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(42))
    few, all_ = load_split(train_of(root, images=9)), load_split(train_of(root))
    np.testing.assert_array_equal(few.centred(np.arange(9)), all_.centred(np.arange(9)))
    assert len(set(all_.labels.tolist())) == 7


def test_images_that_changed_after_planning_are_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(42))
    config = train_of(root)
    victim = sorted((root / "ant").iterdir())[0]
    victim.unlink()
    with pytest.raises(ValueError, match="not those of the plan"):
        load_split(config)


def test_other_classes_are_refused_by_stages_that_read_them_alone(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "set", pictures(42))
    labelled, unlabelled = train_of(root), train_of(root, labels=False)
    assert labelled.identity != unlabelled.identity
    (root / "ant").rename(root / "zebra")  # the same images, numbered otherwise
    with pytest.raises(ValueError, match="not those of the plan"):
        load_split(labelled)
    assert len(load_split(unlabelled)) == 30
    assert train_of(root, labels=False).identity == unlabelled.identity


def test_a_file_that_breaks_while_a_stage_runs_is_named(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "set", pictures(42))
    train = load_split(train_of(root))
    for file in root.iterdir():
        os.truncate(file, 10)
    with pytest.raises(ValueError, match=rf"\d+\.\w+ in {root} cannot be read: .*put it back"):
        train.centred(np.array([4]))


def test_protocols_tell_images_apart(tmp_path: Path) -> None:
    one = train_of(write_flat(tmp_path / "one", pictures(42)))
    other = train_of(write_flat(tmp_path / "other", pictures(42, seed=1)))
    assert one.title != other.title
    assert one.title.startswith("folder-")
