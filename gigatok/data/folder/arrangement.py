"""Order, splits and classes of a user's images: functions of their content and labels alone.

Images are in the order of the digests of their pixels, which is random as far as the pictures go
and the same in every container. So a prefix of a split holds all classes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gigatok.data.folder.files import FileListing
from gigatok.data.folder.index import ContentIndex, Texts
from gigatok.data.image_sets import Int64

_TRAIN = "train"
_VAL = ("val", "valid", "validation", "test")
"""Names of the validation split; the first of them that a set has counts."""
_NAMED = 10
"""Classes that a message names."""
Flags = npt.NDArray[np.bool_]
_Parts = tuple[str, ...]


@dataclass(frozen=True)
class Arrangement:
    """Splits and classes of the images of an index.

    Attributes:
        classes: names of the classes, by number.
        labels: class of each image of the index, (N,); -1 for those that are in no split.
        train: rows of the index that train, in order.
        val: rows of the index that validate, in order.
        layout: how the images are stored, in words.
    """

    classes: tuple[str, ...]
    labels: Int64
    train: Int64
    val: Int64
    layout: str

    def content(self, index: ContentIndex, rows: Int64) -> str:
        """Hash the pixels of some images, in order."""
        return hashlib.sha256(index.digests[rows].tobytes()).hexdigest()

    def label_content(self, rows: Int64) -> str:
        """Hash the classes of some images, in order."""
        return hashlib.sha256(self.labels[rows].astype("<i8").tobytes()).hexdigest()


def arrange(
    path: Path, listing: FileListing, index: ContentIndex, val_fraction: float
) -> Arrangement:
    """Sort the images into splits and classes.

    Splits are those that folders or archives are named after; otherwise a fraction of all images
    validates, chosen by their content.

    Raises:
        ValueError: images lie beside folders of classes, or a class has no image in train.
    """
    folders, inverse = np.unique(index.folders, return_inverse=True)
    parts = [_parts(folder) for folder in folders.tolist()]
    split, depth = _splits(parts, inverse, index, listing)
    names = _class_names(path, index, split, parts, inverse, depth)
    used = split >= 0
    classes, labels = _numbered(names, used)
    order = _by_content(index, labels)
    if (split == _POOL).any():
        train, val = _divided(index, order[used[order]], labels, val_fraction)
    else:
        train, val = (order[split[order] == number] for number in (_TRAINS, _VALIDATES))
    arranged = Arrangement(classes, labels, train, val, _layout(listing, classes, split))
    _check_classes(path, arranged, _empty_classes(listing, parts, depth))
    return arranged


# Splits

_LEFT_OUT, _TRAINS, _VALIDATES, _POOL = -1, 0, 1, 2


def _splits(
    parts: Sequence[_Parts], inverse: Int64, index: ContentIndex, listing: FileListing
) -> tuple[Int64, int]:
    """Find the split of each image, (N,), and the place of the class among the folder's parts."""
    if listing.kind != "folders" and (by_file := _splits_by_name(index.files)) is not None:
        split = by_file[index.file_of]
        return split, _shared([p for p, s in _by_folder(parts, inverse, split) if s == _TRAINS])
    shared = _shared(parts)
    heads = [part[shared].lower() if len(part) > shared else "" for part in parts]
    meant = _split_numbers(heads)
    if meant is None:
        return np.full(len(inverse), _POOL), shared
    # Inside `train` alone: `val` may lack classes, and then share more of its folders.
    inside = [part[shared + 1 :] for part, n in zip(parts, meant, strict=True) if n == _TRAINS]
    return np.array(meant)[inverse], shared + 1 + _shared(inside)


def _splits_by_name(files: Texts) -> Int64 | None:
    """Find the split of each archive by the words of its path; None: they tell none."""
    words = [re.split(r"[^a-z]+", os.fsdecode(name).lower()) for name in files.tolist()]
    # The last word counts: `val/train_cars.tar` would be a strange name for training images.
    known = {_TRAIN, *_VAL}
    heads = [next((w for w in reversed(some) if w in known), "") for some in words]
    meant = _split_numbers(heads)
    return None if meant is None else np.array(meant)


def _split_numbers(heads: Sequence[str]) -> list[int] | None:
    """Number the split that each name means; None unless there are both splits."""
    present = set(heads)
    val = next((name for name in _VAL if name in present), None)
    if _TRAIN not in present or val is None:
        return None
    meaning = {_TRAIN: _TRAINS, val: _VALIDATES}
    return [meaning.get(head, _LEFT_OUT) for head in heads]


def _by_folder(
    parts: Sequence[_Parts], inverse: Int64, split: Int64
) -> Iterable[tuple[_Parts, int]]:
    pairs = np.unique(np.stack([inverse, split]), axis=1).T.tolist()
    return ((parts[folder], number) for folder, number in pairs)


def _divided(
    index: ContentIndex, rows: Int64, labels: Int64, val_fraction: float
) -> tuple[Int64, Int64]:
    """Divide rows in the order of their content into train and val."""
    count = round(len(rows) * val_fraction)
    # Copies of an image stay on one side: validation would else score what was trained on.
    while 0 < count < len(rows) and _are_copies(index, rows[count - 1], rows[count]):
        count -= 1
    val, train = rows[:count], rows[count:]
    # A class of few images may fall into `val` as a whole: its last image goes back.
    lost = np.setdiff1d(labels[val], labels[train])
    last = [val[labels[val] == label][-1] for label in lost]
    back = np.isin(val, [r for r in val for one in last if _are_copies(index, r, one)])
    return np.concatenate([val[back], train]), val[~back]


def _are_copies(index: ContentIndex, one: int, other: int) -> bool:
    return np.array_equal(index.digests[one], index.digests[other])


def _by_content(index: ContentIndex, labels: Int64) -> Int64:
    """Order images by their digests; equal ones by their classes."""
    # As numbers: NumPy's comparison of bytes ignores zeros at the end.
    words = index.digests.copy().view(">u8").reshape(-1, 4)
    return np.lexsort((labels, *(words[:, i] for i in reversed(range(4)))))


# Classes


def _parts(folder: bytes) -> _Parts:
    return tuple(part for part in os.fsdecode(folder).split("/") if part)


def _shared(parts: Sequence[_Parts]) -> int:
    """Count the leading folders that all images share: they tell nothing apart."""
    return sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False)))


def _class_names(
    path: Path,
    index: ContentIndex,
    split: Int64,
    parts: Sequence[_Parts],
    inverse: Int64,
    depth: int,
) -> Texts:
    """Name the class of each image: its label, or else the first folder that tells images apart.

    Raises:
        ValueError: only some images have a label, or lie in a folder.
    """
    used = split >= 0
    labelled = index.labels != b""
    if labelled[used].any():
        _check_all(path, index, used, labelled, "have a label")
        return index.labels
    heads = [part[depth] if len(part) > depth else "" for part in parts]
    names = np.array([os.fsencode(head) for head in heads])[inverse]
    if (names[used] != b"").any():
        _check_all(path, index, used, names != b"", "lie in the folder of a class")
    return names


def _check_all(path: Path, index: ContentIndex, used: Flags, has: Flags, what: str) -> None:
    without = np.flatnonzero(used & ~has)
    if len(without):
        raise ValueError(
            f"path {path}: {len(without):,} images do not {what} but {int((used & has).sum()):,} "
            f"do; without one is {index.describe(int(without[0]))}; give every image a class, or "
            "none"
        )


def _numbered(names: Texts, used: Flags) -> tuple[tuple[str, ...], Int64]:
    """Number the classes in the order of their names; whole numbers in that of their values."""
    found, inverse = np.unique(names, return_inverse=True)
    known = [os.fsdecode(name) for name in found.tolist()]
    # Present in a split: other names may stand in folders that are left out.
    present = np.unique(inverse[used]).tolist()
    if all(re.fullmatch(r"-?\d+", known[i]) for i in present):
        present.sort(key=lambda i: (int(known[i]), known[i]))
    number = np.full(len(known), -1, np.int64)
    number[present] = np.arange(len(present))
    labels = np.where(used, number[inverse], -1)
    return tuple(known[i] for i in present), labels


def _check_classes(path: Path, arranged: Arrangement, empty: Sequence[str]) -> None:
    trained = set(np.unique(arranged.labels[arranged.train]).tolist())
    without = [name for i, name in enumerate(arranged.classes) if i not in trained]
    if lacking := sorted({*without, *(set(empty) - set(arranged.classes))}):
        named = ", ".join(lacking[:_NAMED]) + ", ..." * (len(lacking) > _NAMED)
        raise ValueError(
            f"path {path}: {len(lacking)} classes without images in train: {named}; add images, "
            "or remove their folders"
        )
    for split, rows in (("train", arranged.train), ("val", arranged.val)):
        if not len(rows):
            raise ValueError(
                f"path {path} has {len(arranged.train) + len(arranged.val)} images, which leaves "
                f"none for {split}; add images, or change val_fraction"
            )


def _empty_classes(listing: FileListing, parts: Sequence[_Parts], depth: int) -> list[str]:
    """Name the folders without images that stand beside folders of classes."""
    beside = {part[:depth] for part in parts if len(part) > depth}
    empty = (tuple(name.split("/")) for name in listing.empty)
    return [part[-1] for part in empty if part[:-1] in beside]


def _layout(listing: FileListing, classes: Sequence[str], split: Int64) -> str:
    """Say how the images are stored, and where their splits come from."""
    flat = len(classes) == 1
    words = {"folders": "flat folder" if flat else "class folders", "npz": ".npz"}
    own = "" if (split == _POOL).any() else ", with splits of their own"
    return words.get(listing.kind, listing.kind) + own
