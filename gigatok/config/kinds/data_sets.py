"""Data sets by name, with the facts that planning needs. Uses the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gigatok.plugins import Registry, registry


@dataclass(frozen=True)
class DataSet:
    """Data set that a trial can name.

    Attributes:
        name: value of `data.name`.
        num_classes: number of classes; None: `looks` finds it out.
        fingerprint: text that identifies the content, whatever container it came in. Planning
            puts it into stage keys without reading the data; loading has to verify it. "":
            it is in the config of the split, as `looks` found it.
        module: module with `load(config: SplitConfig) -> ImageSet`, imported when a stage reads.
        looks: module without torch whose `look(path, val_fraction, image_size) -> FoundImages`
            finds out about images that `data.path` names; None: the data set has no path.
        supply: module without torch whose `missing(split) -> str | None` says what the user has
            to supply and is not here; None: the data are fetched or made.
    """

    name: str
    num_classes: int | None
    fingerprint: str
    module: str
    supply: str | None = None
    looks: str | None = None


DATA_SETS: Registry[DataSet] = registry("data set")
"""Every data set that `data.name` may say."""


def register(data_set: DataSet) -> DataSet:
    """Add a data set, and return it.

    Raises:
        ValueError: another data set has the name.
    """
    return DATA_SETS.add(data_set.name, data_set)


def find_data_set(name: str) -> DataSet:
    """Look up a data set.

    Raises:
        ValueError: there is no data set of that name.
    """
    if name not in DATA_SETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(sorted(DATA_SETS))}")
    return DATA_SETS[name]


def look_at(name: str, path: str, val_fraction: float, image_size: int) -> Any:
    """Find out about the images at a path: `FoundImages`.

    Raises:
        ValueError: there are none, or they cannot be read.
    """
    looks = find_data_set(name).looks
    assert looks is not None, f"{name} has no path"
    # Imported here: looking takes libraries that few plans need.
    return import_module(looks).look(path, val_fraction, image_size)


register(
    DataSet(
        "digits",
        num_classes=10,
        # The 1,797 8x8 images as uint8, then their labels as uint8, in scikit-learn's order.
        fingerprint="87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
        module="gigatok.data.digits",
    )
)
register(
    DataSet(
        "cifar10",
        num_classes=10,
        # The 60,000 records of the canonical binary files, data_batch_1 to 5 then test_batch.
        fingerprint="013ba16d14ecc4829da62bf2af648ca30f600491ecb3e7f329c827db0dd17522",
        module="gigatok.data.cifar10",
    )
)
register(
    DataSet(
        "fashion_mnist",
        num_classes=10,
        # The 70,000 records of the release, each a label and its pixels, training images first.
        fingerprint="21aad080a5e96a3fcb882b59494caf34246facf76eb482bfc80b62d8b626c88e",
        module="gigatok.data.fashion_mnist",
    )
)
register(
    DataSet(
        "imagenet",
        num_classes=1000,
        # A release and its counts, not a hash: nobody waits for hashing 150 GB. What is loaded
        # is checked against what is known of the release (gigatok.data.imagenet.release).
        fingerprint="ILSVRC2012: 1281167 train, 50000 val, 1000 classes",
        module="gigatok.data.imagenet.release",
        supply="gigatok.data.imagenet.place",
    )
)
register(
    DataSet(
        "folder",
        num_classes=None,
        fingerprint="",
        module="gigatok.data.folder.loading",
        looks="gigatok.data.folder.facts",
    )
)
