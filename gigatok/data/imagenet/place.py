"""Folder of ImageNet that the user names: the place of a split in it, and its container.

Imports no torch, since planning uses it as well.
"""

from __future__ import annotations

import os
from pathlib import Path

from gigatok.data.imagenet.containers import CONTAINERS, Container, is_image

VARIABLE = "GIGATOK_IMAGENET"
_RELEASE_FOLDERS = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", "imagenet", "ILSVRC2012")
"""Places below the named folder where the splits often lie; the first is Kaggle's."""


def release_folder() -> Path:
    """Find the folder that the variable names.

    Raises:
        ValueError: it is not set, or names no folder.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        raise ValueError(
            f"data.name imagenet needs {VARIABLE}: a folder that holds the release as {_allowed()}"
        )
    root = Path(given).expanduser()
    if not root.is_dir():
        raise ValueError(f"{VARIABLE} is {given}, which is not a folder")
    return root.resolve()


def missing(split: str) -> str | None:
    """Say why a split of ImageNet is not here; None: it is."""
    try:
        detect(release_folder(), split)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _allowed(split: str = "train") -> str:
    kinds = (f"{name} ({c.layout.format(split=split)})" for name, c in CONTAINERS.items())
    return ", ".join(kinds)


def detect(root: Path, split: str) -> tuple[Container, list[Path]]:
    """Find the container of a split and its files.

    Raises:
        ValueError: there is none, or more than one.
    """
    # All containers are tried, since a second one in the folder must be reported.
    found = {name: files for name, c in CONTAINERS.items() if (files := c.find(root, split))}
    if not found:
        inside = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
        seen = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") or "nothing"
        raise ValueError(
            f"no {split} images of imagenet in {root} ({VARIABLE}); found {seen}; "
            f"{_hint(root, split)}allowed: {_allowed(split)}"
        )
    # Guessing would make results depend on which container was found first.
    if len(found) > 1:
        both = " and ".join(f"{name} ({files[0].name}, ...)" for name, files in found.items())
        raise ValueError(
            f"{root} ({VARIABLE}) holds {split} images as {both}; leave one, or name a folder "
            "that holds one"
        )
    ((name, files),) = found.items()
    return CONTAINERS[name], files


def _hint(root: Path, split: str) -> str:
    """Name the likely mistake behind a folder without images: one level too high, or flat."""
    for below in _RELEASE_FOLDERS:
        if any(c.find(root / below, split) for c in CONTAINERS.values()):
            return f"set {VARIABLE} to {root / below}; "
    folder = root / split
    loose = sum(is_image(p) for p in folder.iterdir()) if folder.is_dir() else 0
    if not loose:
        return ""
    return (
        f"{folder} holds {loose:,} images that are in no class's folder: move each into the "
        "folder of its synset, such as n01440764 (LOC_val_solution.csv of Kaggle's copy says "
        "which it is); "
    )
