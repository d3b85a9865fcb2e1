"""Studies in a runs directory: the folder of each, and the one file that each comes from.

A study's name (`gigatok.names.study_name`) names its folder, its MLflow experiment and its
figures. Two files of one name would show, and cancel, each other's stages, so a runs directory
knows which file a name stands for.
"""

from __future__ import annotations

import os
from pathlib import Path

from gigatok.names import is_study_name, study_name
from orchestration.runs.state import Store


def study_folder(store: Store, name: str) -> Path:
    """Return the folder of a study's launches."""
    # A name that is none, such as `..`, would read and write outside `sweeps/`.
    assert is_study_name(name), f"{name!r} is checked where it was given"
    return store.sweeps / name


def launched_names(store: Store) -> list[str]:
    """List the studies that were launched here, sorted by name; stray files are left out."""
    folders = (path.parent.name for path in store.sweeps.glob("*/*.json") if path.is_file())
    return sorted(name for name in set(folders) if is_study_name(name))


def origin_of(store: Store, file: Path) -> str:
    """Give the path of a study's file relative to the runs directory: both may move together."""
    return os.path.relpath(file.resolve(), store.root.resolve())


def refuse_namesake(store: Store, file: Path, origin: str | None) -> None:
    """Refuse a file whose name stands for another file in this runs directory.

    A file that was moved leaves nothing behind, and a copy with the same content is the same
    study: both are accepted.

    Args:
        store: the runs directory.
        file: the study's file, as the user gave it.
        origin: path that the launches of that name recorded (`origin_of`); None: unknown.

    Raises:
        ValueError: the other file still exists and has other content.
    """
    if origin is None:
        return
    other = (store.root.resolve() / origin).resolve()
    if not other.is_file() or other.samefile(file) or other.read_bytes() == file.read_bytes():
        return
    raise ValueError(
        f"{file}: in {store.root}, '{study_name(str(file))}' is the study of {other}, another "
        "file of the same name; the two would share folder, MLflow experiment, figures and "
        "status. Rename one of the files, or give it a --runs-dir of its own"
    )
