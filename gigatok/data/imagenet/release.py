"""ImageNet (ILSVRC2012) from the container that `$GIGATOK_IMAGENET` names.

A stage's key identifies the data by the name of the release, since hashing 150 GB would take too
long. So that the name is not a mere claim, every load checks a manifest against the index: the
number of images, that every class has as many as the release can have, and, if the names of images
tell their synset, that classes are numbered in the order of synsets and begin and end with the
release's.

The container is not part of the key. Images are put in a canonical order, by class and original
name, then by one fixed permutation, so that a prefix holds all classes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from gigatok.config import SplitConfig
from gigatok.data.assets import cache_dir, cache_to_write
from gigatok.data.image_sets import EncodedImages, check_count, decode
from gigatok.data.imagenet.containers import Container, Index, build_index
from gigatok.data.imagenet.place import VARIABLE, detect, release_folder
from gigatok.files.durable import write_durably

# Never to be changed: the results of every prefix of the data rest on this permutation.
_ORDER_SEED = 0
_INDEX_VERSION = 2
"""Version of the index; raise it when the same files are indexed in another way."""
_ORIGINAL_NAME = re.compile(rb"(n\d{8}_\d+|ILSVRC2012_val_\d{8})")
"""Name of an image in the release; containers add suffixes to it."""


@dataclass(frozen=True)
class SplitFacts:
    """Facts about one split of a release: images in all, fewest and most in a class."""

    images: int
    fewest: int
    most: int


@dataclass(frozen=True)
class Release:
    """Facts about a data set that are known without reading it; synsets of its end classes."""

    classes: int
    first_synset: str
    last_synset: str
    parts: dict[str, SplitFacts]


# Counts of the release: 732 to 1300 training images of a class, 50 for validation.
ILSVRC2012 = Release(
    classes=1000,
    first_synset="n01440764",
    last_synset="n15075141",
    parts={"train": SplitFacts(1_281_167, 732, 1300), "val": SplitFacts(50_000, 50, 50)},
)


def load(config: SplitConfig, release: Release | None = None) -> EncodedImages:
    """Load the first `config.images` images of a split, decoded when a batch asks for them.

    Args:
        config: split, number of images, and their side.
        release: facts that the data must agree with; ILSVRC2012 by default.

    Raises:
        ValueError: the variable is not set, or names something else than the release.
    """
    release = release or ILSVRC2012
    check_count(config, release.parts[config.split].images)
    root = release_folder()
    container, files = detect(root, config.split)
    index = _cached_index(container, files, config.split)
    _check_manifest(index, release, config.split, root)
    # The permutation of all images, then a prefix: a larger set contains every smaller one.
    order = np.random.default_rng(_ORDER_SEED).permutation(len(index.labels))[: config.images]
    read = container.reader(files, index)
    return EncodedImages(
        lambda i: decode(read(i)),
        order,
        index.labels[order],
        release.classes,
        config.image_size,
        lambda i: f"image {index.names[i].decode()} in {files[index.files[i]]}",
        "put the file of the release in its place",
    )


def _cached_index(container: Container, files: list[Path], split: str) -> Index:
    """Return the index in canonical order, built once and cached until a file changes."""
    path = cache_dir() / "imagenet" / f"{split}-{_signature(files)}.npz"
    cache_to_write("imagenet")
    # Eight processes of one stage would else list a million files each.
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            index = _canonical(build_index(container, files))
            write_durably(path, lambda temporary: _save(temporary, index))
    with np.load(path) as arrays:
        return Index(**arrays)


def _signature(files: list[Path]) -> str:
    """Hash what changes with a shard, or with the number of images in a class folder."""
    digest = hashlib.sha256(f"{_INDEX_VERSION}\n".encode())
    for path in files:
        # A folder's time changes when an image is added or removed in it.
        state = path.stat()
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _save(path: Path, index: Index) -> None:
    with path.open("wb") as file:
        np.savez(file, **vars(index))


def _canonical(index: Index) -> Index:
    """Sort by class, then by the release's name of an image, or else by the container's."""
    names = np.array([_original(name) for name in index.names.tolist()])
    order = np.lexsort((names, index.labels))
    return Index(*(column[order] for column in vars(index).values()))


def _original(name: bytes) -> bytes:
    match = _ORIGINAL_NAME.search(name)
    return match.group() if match else name


def _check_manifest(index: Index, release: Release, split: str, root: Path) -> None:
    """Refuse data that cannot be the release (see the module's docstring)."""
    part = release.parts[split]
    problems = []
    if len(index.labels) != part.images:
        problems.append(f"{len(index.labels):,} images, expected {part.images:,}")
    outside = (index.labels < 0) | (index.labels >= release.classes)
    if outside.any():
        wrong = index.labels[outside][0]
        problems.append(f"class {wrong}, expected 0 to {release.classes - 1}")
        # Labels from 1 to N are a usual mistake of converted sets; name it instead of its effects.
        if index.labels.min() == 1 and wrong == release.classes:
            problems.append("classes are counted from 1; count them from 0")
    counts = np.bincount(index.labels[~outside], minlength=release.classes)
    for label in (int(counts.argmin()), int(counts.argmax())):
        if not part.fewest <= counts[label] <= part.most:
            problems.append(
                f"{counts[label]} images of class {label}, expected {part.fewest} to {part.most}"
            )
    problems += _misnumbered(index, release)
    if problems:
        raise ValueError(
            f"the {split} split in {root} ({VARIABLE}) is not that of the release: "
            + "; ".join(dict.fromkeys(problems))
        )


def _misnumbered(index: Index, release: Release) -> list[str]:
    """Report names beginning with a synset that contradict the numbers of the classes."""
    # A synset has nine characters, "n" and eight digits.
    synsets = index.names.astype("S9")
    known = np.char.startswith(synsets, b"n") & np.char.isdigit(np.char.lstrip(synsets, b"n"))
    pairs = np.unique(np.rec.fromarrays([synsets[known], index.labels[known]]))
    if len(pairs) == 0:
        # Plain validation names tell no synset, so there is nothing to check.
        return []
    names = [synset.decode() for synset in pairs["f0"].tolist()]
    labels = pairs["f1"].tolist()
    if labels != list(range(release.classes)):
        ordered = zip(names, labels, strict=True)
        wrong = (f"{n} is class {c}" for i, (n, c) in enumerate(ordered) if i != c)
        example = next(wrong, f"there are {len(names)} synsets")
        return [f"classes are not numbered in the order of their synsets: {example}"]
    if (names[0], names[-1]) != (release.first_synset, release.last_synset):
        return [
            f"synsets from {names[0]} to {names[-1]}, "
            f"expected {release.first_synset} to {release.last_synset}"
        ]
    return []
