"""Facts about a user's images that planning needs: numbers, classes, content. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gigatok.config import FoundImages, FoundSplit
from gigatok.data.crops import UInt8
from gigatok.data.folder.arrangement import arrange
from gigatok.data.folder.index import read_index


def look(path: str, val_fraction: float, image_size: int) -> FoundImages:
    """Look at the images of a path; they are decoded unless the cache knows them.

    Args:
        path: a folder, or a file of images.
        val_fraction: part of the images that validates, unless they have splits of their own.
        image_size: side that they will be cropped to.

    Raises:
        ValueError: there are none, some cannot be read, or a class has none to train on.
    """
    root = Path(path)
    listing, index = read_index(root)
    arranged = arrange(root, listing, index, val_fraction)
    train, val = arranged.train, arranged.val
    short_sides = index.sizes[np.concatenate([train, val])].min(axis=1)
    both = np.intersect1d(_whole(index.digests[train]), _whole(index.digests[val]))
    return FoundImages(
        num_classes=len(arranged.classes),
        train=FoundSplit(
            images=len(train),
            content=arranged.content(index, train),
            labels=arranged.label_content(train),
        ),
        val=FoundSplit(
            images=len(val),
            content=arranged.content(index, val),
            labels=arranged.label_content(val),
        ),
        smaller=int((short_sides < image_size).sum()),
        in_both=len(both),
        in_neither=len(index) - len(train) - len(val),
        layout=arranged.layout,
        left_out=", ".join(f"{n} {suffix}" for suffix, n in sorted(listing.left_out.items())),
    )


def _whole(digests: UInt8) -> npt.NDArray[np.void]:
    """View digests (N, 32) as one value each, (N,)."""
    return np.ascontiguousarray(digests).view("V32").ravel()
