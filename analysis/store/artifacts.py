"""Files that runs logged. Local ones are read in place, and only below a given folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from analysis.store.opening import open_store
from analysis.store.servers import connect
from gigatok.names import ARTIFACTS

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Outside(ValueError):
    """A file is not below the folder from which files may be read."""


def read(uri: str, run_id: str, path: str, within: Path | None = None) -> bytes | None:
    """Read a file of a run; None where it logged none.

    Args:
        uri: the tracking store.
        run_id: the run.
        path: path of the file below the run's own folder, with `/`.
        within: folder outside which no file of this machine is read; by default the run's own.

    Raises:
        Outside: the file lies elsewhere.
    """
    # A server's files come through its API, which has checks of its own; `within` guards this
    # machine's files, as whoever can write to the store chooses the path in a run's row.
    folder = _local(uri, run_id)
    if folder is None:
        return _fetch(uri, run_id, path)
    file = _inside(folder / path, within or folder)
    return file.read_bytes() if file.is_file() else None


def logged_picture(
    uri: str, run_id: str, stage: str, name: str, within: Path | None = None
) -> bytes | None:
    """Read the PNG that a trial's stage logged; None where it logged none.

    Raises:
        Outside: it lies on this machine, but not within that folder.
    """
    return read(uri, run_id, f"pictures/{stage}/{name}.png", within)


def listing(uri: str, run_id: str, folder: str, within: Path | None = None) -> Sequence[str]:
    """List the files in a folder of a run, sorted.

    Raises:
        Outside: see `read`.
    """
    root = _local(uri, run_id)
    if root is None:
        return sorted(f.path for f in _client(uri).list_artifacts(run_id, folder) if not f.is_dir)
    place = _inside(root / folder, within or root)
    if not place.is_dir():
        return []
    return sorted(f"{folder}/{file.name}" for file in place.iterdir() if file.is_file())


def _local(uri: str, run_id: str) -> Path | None:
    """Find the folder of a run on this machine; None where the server has it."""
    # A run that the store does not have is left to the client, which names it in its error.
    root = urlsplit(open_store(uri).artifact_root(run_id) or "none:")
    if root.scheme not in ("", "file"):
        return None
    # MLflow stores a URI: blanks and accents of a folder are percent-encoded in it.
    folder = Path(unquote(root.path))
    return _beside_database(uri, folder) or folder


def _beside_database(uri: str, stored: Path) -> Path | None:
    """Find the same folder beside the sqlite file; None where it does not lie there.

    The stored place is absolute: it is that of the original after a copy, and gone after a move.
    """
    # The folder's name splits the stored path into where it was and what is below it.
    _, own, tail = str(stored).rpartition(f"/{ARTIFACTS}/")
    if not own or not uri.startswith("sqlite:///"):
        return None
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve()
    folder = database.parent / ARTIFACTS / tail
    return folder if folder.is_dir() else None


def _inside(path: Path, folder: Path) -> Path:
    """Follow the links of a path.

    Raises:
        Outside: that is not in the folder.
    """
    # Links are followed first: a link inside the folder may lead out of it.
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise Outside(f"{path.name} lies outside {folder} and is not shown")
    return real


def _fetch(uri: str, run_id: str, path: str) -> bytes | None:
    client = _client(uri)
    folder = path.rpartition("/")[0]
    # Asked beforehand: a file that was never logged is no error, and a server that fails still is
    # one.
    if path not in {item.path for item in client.list_artifacts(run_id, folder)}:
        return None
    with TemporaryDirectory() as place:
        return Path(client.download_artifacts(run_id, path, place)).read_bytes()


@cache
def _client(uri: str) -> MlflowClient:
    # MLflow draws a progress bar for every file otherwise.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return connect(uri)
