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
    """Folder of a study's launches."""
    # A name that is none, such as `..`, would read and write outside `sweeps/`.
    assert is_study_name(name), f"{name!r} is checked where it was given"
    return store.sweeps / name


def launched_names(store: Store) -> list[str]:
    """Names of the studies that were launched here, sorted; stray files and folders are none."""
    folders = (path.parent.name for path in store.sweeps.glob("*/*.json") if path.is_file())
    return sorted(name for name in set(folders) if is_study_name(name))


def origin_of(store: Store, file: Path) -> str:
    """Say where a study's file lies, seen from the runs directory: both may move together."""
    return os.path.relpath(file.resolve(), store.root.resolve())


def refuse_namesake(store: Store, file: Path, origin: str | None) -> None:
    """Refuse a file whose name stands for another file in this runs directory.

    A file that was moved leaves nothing behind, and a copy that says the same is the same study:
    both are accepted.

    Args:
        store: the runs directory.
        file: what the user gave.
        origin: of the launches of that name, as `origin_of` says it; None: not known.

    Raises:
        ValueError: the other file is still there and says something else.
    """
    if origin is None or file.resolve().is_relative_to(store.sweeps.resolve()):
        return  # launched by older code; or the copy that a launch keeps
    other = (store.root.resolve() / origin).resolve()
    if not other.is_file() or other.samefile(file) or other.read_bytes() == file.read_bytes():
        return
    raise ValueError(
        f"{file}: in {store.root}, '{study_name(str(file))}' is the study of {other}, another "
        "file of the same name; the two would share folder, MLflow experiment, figures and "
        "status. Rename one of the files, or give it a --runs-dir of its own"
    )
