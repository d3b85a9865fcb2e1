"""Files that survive a power cut, and records that reveal damage. Imports no torch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigatok.files.hashes import sha256_of

if TYPE_CHECKING:
    import numpy.typing as npt

Facts = dict[str, Any]
"""Facts about a file, as an index keeps them: `bytes` and `sha256`."""

_STEP = re.compile(r"step-(\d{9,})")
_IS_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP}
"""Errors that mean damage; others, such as a missing permission, may pass."""
FLUSHERS = 16
"""Threads that flush a tree."""


class Damaged(ValueError):
    """Damage: a file is not as it was written; the message names it and the difference."""


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    # Read-only suffices for fsync, and a folder cannot be opened for writing.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all files and folders below it are on the disk."""
    paths = []
    for root, _, names in os.walk(folder):
        files = (Path(root, name) for name in names)
        # A link is only a name, which the folder holds; its target is not ours.
        paths += [file for file in files if file.is_file() and not file.is_symlink()]
        paths.append(Path(root))
    # At the same time: the disk then writes many with one flush, and has one flush for each
    # otherwise. 600 files took .2 s instead of 3.
    with ThreadPoolExecutor(FLUSHERS) as pool:
        # Consumed, so that an error in a thread is raised here.
        list(pool.map(sync, paths))


def make_folder(path: Path) -> None:
    """Make a folder and those above it whose names survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        # It may exist by now: several processes prepare the same runs directory.
        path.mkdir(exist_ok=True)
        sync(path.parent)


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place."""
    make_folder(path.parent)
    # In the same folder: a rename across file systems is no rename but a copy. With the process
    # number, as two workers may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    # Before the rename: a file system may write names before content, and leave a file of zeros.
    sync(temporary)
    # Readers see the old file or the new one, never a part.
    temporary.replace(path)
    sync(path.parent)


def write_text_durably(path: Path, text: str) -> None:
    """Write text in UTF-8 as `write_durably` does."""
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_array_durably(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array in NumPy's format as `write_durably` does."""
    # Imported here: planning writes text alone, and NumPy takes a tenth of a second.
    import numpy as np

    def save(temporary: Path) -> None:
        # As an open file: to a name that does not end in .npy, NumPy would add that.
        with temporary.open("wb") as file:
            np.save(file, array)

    write_durably(path, save)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def steps(folder: Path) -> dict[int, Path]:
    """Map steps to the paths named `step-<n>` in a folder, oldest first; ignore other names."""
    # By number, not by name: steps of ten digits and more would sort before shorter ones.
    found = ((_STEP.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def step_path(folder: Path, step: int) -> Path:
    """Return the path that `steps` finds under this step."""
    return folder / f"step-{step:09d}"


def facts_of(path: Path) -> Facts:
    """Compute size and hash of a file."""
    # Today's processors have instructions for sha256: twice as fast as BLAKE2 there.
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def check_file(path: Path, written: Facts) -> None:
    """Compare a file with the facts from when it was written.

    Raises:
        Damaged: the file is missing, cannot be read, or has other content.
    """
    try:
        # First the size: it costs nothing, and says more than a hash.
        size = path.stat().st_size
        found = facts_of(path) if size == written["bytes"] else None
    except OSError as error:
        raise _damaged(path, error) from error
    if found is None:
        raise Damaged(f"{path.name} has {size} bytes, and {written['bytes']} were written")
    if found["sha256"] != written["sha256"]:
        raise Damaged(f"{path.name} is not what was written: its sha256 differs")


def write_checked(path: Path, content: Any) -> None:
    """Write a JSON value durably, with a hash that `read_checked` compares."""
    record = {"content": content, "sha256": _digest(content)}
    write_text_durably(path, json.dumps(record, indent=1))


def read_checked(path: Path) -> Any:
    """Read a value that `write_checked` wrote.

    Raises:
        Damaged: the file is missing, cannot be read, or has other content.
    """
    try:
        record = json.loads(path.read_bytes())
        if record["sha256"] == _digest(record["content"]):
            return record["content"]
    except OSError as error:
        raise _damaged(path, error) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # no JSON, or JSON of something else
    raise Damaged(f"{path.name} is not what was written")


def _digest(content: Any) -> str:
    # Sorted keys: a JSON object that was read and written again keeps its hash.
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, error: OSError) -> Exception:
    """Tell damage from a passing error, which must not make anybody give up stored data."""
    if error.errno not in _IS_DAMAGE:
        return error
    missing = error.errno == errno.ENOENT
    return Damaged(f"{path.name} is missing" if missing else f"{path.name}: {error.strerror}")
