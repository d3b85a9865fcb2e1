"""Copy of the code as it was at launch, which queued jobs run whatever happens to the source.

`<runs>/snapshots/<hash>/` holds the packages, the sweeps, and `provenance.json` with the state of
git at that time. The name is a hash of all of it, so that an unchanged source is copied once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from gigatok.files.durable import sync_tree
from orchestration.runs import provenance
from orchestration.runs.state import Store

SOURCE = Path(__file__).resolve().parents[2]
PARTS = ("gigatok", "orchestration", "analysis", "dashboards", "sweeps")
"""Top folders that are copied, where they exist."""


def take_snapshot(store: Store, source: Path = SOURCE) -> Path:
    """Copy the code for jobs of this runs directory, unless it is there already.

    Put it first on the `PYTHONPATH` of a worker, and set `PYTHONSAFEPATH=1`: otherwise
    `python -m` imports from the current folder, which may hold the edited source.

    Args:
        store: the runs directory, which all nodes see.
        source: the folder that holds the packages; a snapshot of this store is used as it is.

    Raises:
        OSError: it cannot be written.
    """
    snapshots = store.root.resolve() / "snapshots"
    # A controller runs from a snapshot and submits more stages: they run the same code, not a copy
    # of the copy under another hash.
    if source.resolve().parent == snapshots:
        return source.resolve()
    state = json.dumps(provenance.git_state(source), indent=1)
    files = sorted(_files(source))
    folder = snapshots / _digest(source, files, state)
    if not folder.is_dir():
        snapshots.mkdir(parents=True, exist_ok=True)
        _copy(source, files, state, folder)
    return folder


def _files(source: Path) -> Iterator[Path]:
    """List the relative paths of all code and data files."""
    for part in PARTS:
        for folder, below, names in os.walk(source / part):
            below[:] = [name for name in below if name != "__pycache__" and name[0] != "."]
            for name in names:
                if not name.startswith(".") and not name.endswith(".pyc"):
                    yield (Path(folder) / name).relative_to(source)


def _digest(source: Path, files: list[Path], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for file in files:
        content = hashlib.sha256((source / file).read_bytes()).hexdigest()
        digest.update(f"\n{file.as_posix()} {content}".encode())
    return digest.hexdigest()[:16]


def _copy(source: Path, files: list[Path], state: str, folder: Path) -> None:
    """Copy under another name first: a folder that exists is whole."""
    draft = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    for file in files:
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, draft / file)
    (draft / provenance.RECORD).write_text(state, encoding="utf-8")
    # A power cut would leave empty files under a name that is taken for whole ever after.
    sync_tree(draft)
    try:
        draft.rename(folder)
    except OSError:
        # Another launcher was quicker; anything else is for the user to know.
        shutil.rmtree(draft)
        if not folder.is_dir():
            raise
