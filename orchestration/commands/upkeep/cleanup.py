"""`python -m orchestration gc`: free what nobody needs any more.

Checkpoints of complete stages, and copies of the code that no job uses, go at once. Stages that
no launched plan names are results: they are listed, and go with `--yes` only. Nothing is deleted
behind a link, nor any stage while the record of a plan cannot be read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from gigatok.text.fitting import FittingTable
from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.backends import BACKENDS
from orchestration.backends.detached.journal import Journal
from orchestration.launching.history import launched_keys
from orchestration.runs.files import remove
from orchestration.runs.holder import leftovers_of_complete
from orchestration.runs.records import UnreadableRecord
from orchestration.runs.state import Store
from orchestration.terminal import plain_console

MOST_ROWS = 30
Kind = Literal["checkpoints", "code", "stage"]


@dataclass(frozen=True)
class Leftover:
    """Folder that could go; `results`: with it goes what was computed."""

    kind: Kind
    path: Path
    size: int
    results: bool = False


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete results of no plan as well.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Delete leftover checkpoints and old copies of the code; with --yes, stages of no plan."""
    store = Store(runs_dir)
    console = plain_console()
    # A list before anything is deleted: sizes and verdicts belong to one look.
    lying = [left for left in leftovers(store) if not _is_behind_link(left.path, store)]
    # The largest first: the table is cut, and those matter.
    found = sorted(lying, key=lambda left: -left.size)
    doomed = [] if dry_run else [left for left in found if yes or not left.results]
    if found:
        console.print(leftovers_table(found, store, doomed))
    for left in doomed:
        remove(left.path)
    # Results are never deleted by default: computing them again can take days.
    kept = [left for left in found if left not in doomed]
    console.print(f"{len(doomed)} folders deleted, {size_text(sum(d.size for d in doomed))} freed")
    if kept:
        why = "this was --dry-run" if dry_run else "stages of no plan go with --yes"
        console.print(f"{len(kept)} kept, {size_text(sum(k.size for k in kept))}: {why}")


def leftovers(store: Store) -> Iterator[Leftover]:
    """List everything that could go."""
    planned = _planned(store)
    busy = False
    for folder in store.stage_folders():
        path = folder.path
        state = folder.state()
        # A worker of any launch may still import from a snapshot that no queued job names.
        busy |= state == "RUNNING"
        if state == "RUNNING":
            continue
        if planned is not None and folder.key not in planned:
            yield Leftover("stage", path, size_of(path), results=True)
        elif state == "COMPLETE":
            # A worker that was killed behind DONE could not clean up after itself.
            for path in leftovers_of_complete(folder):
                yield Leftover("checkpoints", path, size_of(path))
    if not busy:
        yield from _old_code(store)


def _planned(store: Store) -> set[str] | None:
    """Collect the keys that any plan names; None where a plan cannot be read: it may name all."""
    try:
        return launched_keys(store)
    except UnreadableRecord as error:
        print(f"{error}; stages are kept, since it may name any of them", file=sys.stderr)
        return None


def _is_behind_link(path: Path, store: Store) -> bool:
    """Tell whether a link leads to a path: what lies there may be of another runs directory."""
    root = store.root.resolve()
    # The parent: deleting a link itself is harmless, deleting behind one is not.
    return path.parent.resolve() != root / path.parent.relative_to(store.root)


def _old_code(store: Store) -> Iterator[Leftover]:
    """List copies of the code but the newest, and those that queued jobs will import."""
    folders = sorted((store.root / "snapshots").glob("[!.]*"), key=lambda f: f.lstat().st_mtime)
    # The name of a record is the job's: that is known even where the record cannot be read.
    names = {file.stem for file in Journal(store).files()}
    scripts = [
        file.read_text(encoding="utf-8", errors="replace")
        for name in names
        for backend in BACKENDS
        for file in (store.job_files(backend) / name).glob("*.sh")
        if file.is_file()
    ]
    # The newest stays: a launch that has taken it may not have queued anything yet.
    for folder in folders[:-1]:
        if not any(folder.name in script for script in scripts):
            yield Leftover("code", folder, size_of(folder))


def size_of(folder: Path) -> int:
    """Add up the bytes of a file or folder; what a link leads to does not count."""
    if folder.is_symlink() or folder.is_file():
        return os.lstat(folder).st_size
    # Sizes as the files state them, not the blocks that they take on disk.
    walk = ((parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, name in walk)


def size_text(size: float) -> str:
    """Write bytes in the largest unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def leftovers_table(found: list[Leftover], store: Store, doomed: list[Leftover]) -> FittingTable:
    """Make a row per folder, the largest first."""
    table = FittingTable(("what", "size", "", "where"), ("size",), wraps=("what", "where"))
    for left in found[:MOST_ROWS]:
        fate = Text("deleted", style="red") if left in doomed else Text("kept", style="dim")
        where = str(left.path.relative_to(store.root))
        table.add_row(left.kind, size_text(left.size), fate, Text(where))
    if len(found) > MOST_ROWS:
        table.add_row(f"… {len(found) - MOST_ROWS} more", style="dim")
    return table
