"""Splits of a user's images, decoded when a batch asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gigatok.config import SplitConfig
from gigatok.data.crops import UInt8
from gigatok.data.folder.arrangement import Arrangement, arrange
from gigatok.data.folder.index import ContentIndex, read_index, reader
from gigatok.data.image_sets import EncodedImages, check_count

_KEPT_BYTES = 2**28
"""Most bytes of decoded images that a process keeps; each process of a stage keeps its own."""


def load(config: SplitConfig) -> EncodedImages:
    """Load the first `config.images` images of a split.

    Raises:
        ValueError: the images are not those that were planned, or too few.
    """
    folder = config.folder
    assert folder is not None, "planning adds the facts about the images"
    root = Path(folder.path)
    listing, index = read_index(root)
    arranged = arrange(root, listing, index, folder.val_fraction)
    _check_content(config, index, arranged)
    rows = arranged.train if config.split == "train" else arranged.val
    check_count(config, len(rows))
    rows = rows[: config.images]
    read = reader(listing, index)

    def original(row: int) -> UInt8:
        return read(int(index.file_of[row]), *index.places[row].tolist())

    # Height, width and three colours.
    small = int(index.sizes[rows].prod(axis=1).sum()) * 3 <= _KEPT_BYTES
    return EncodedImages(
        _remembering(original) if small else original,
        rows,
        arranged.labels[rows],
        len(arranged.classes),
        config.image_size,
        lambda row: f"{index.describe(row)} in {root}",
        "it could be read when the launch was planned: put it back",
    )


def _check_content(config: SplitConfig, index: ContentIndex, arranged: Arrangement) -> None:
    """Refuse images that have changed since the launch was planned: keys name the old ones."""
    folder = config.folder
    assert folder is not None, "checked by the caller"
    rows = arranged.train if config.split == "train" else arranged.val
    found = (arranged.content(index, rows), arranged.label_content(rows), len(arranged.classes))
    expected = folder.content, folder.labels or found[1], folder.num_classes or found[2]
    if found != expected:
        raise ValueError(
            f"the {config.split} images in {folder.path} are not those of the plan: they have "
            "changed, or are others on this machine; put the old ones back, or launch again"
        )


def _remembering(read: Callable[[int], UInt8]) -> Callable[[int], UInt8]:
    """Keep what was decoded: small images are asked for in every epoch."""
    known: dict[int, UInt8] = {}

    # Two threads may decode the same image at the same time, which only costs time.
    def remembered(row: int) -> UInt8:
        if row not in known:
            known[row] = read(row)
        return known[row]

    return remembered
