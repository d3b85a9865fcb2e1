"""The file of a sqlite tracking store: made whole, found damaged or moved, set aside.

Nothing is ever lost with it: all that it holds is on disk in the runs directory and can be sent
again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gigatok.names import ARTIFACTS
from orchestration.tracking.ledger import exclusive

DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Answers of sqlite that say that the file itself is wrong; no other attempt will differ."""
SIDE_FILES = ("", "-journal", "-wal", "-shm")
"""Endings of the files that make up a database."""


class DamagedDatabase(ValueError):
    """A database file that cannot be read; trying again is of no use."""

    def __init__(self, database: Path, reason: str) -> None:
        super().__init__(f"{database} is damaged ({reason})")


def alone(database: Path) -> AbstractContextManager[None]:
    """Be the only process that makes, moves or sets aside a database.

    Raises:
        Busy: another process does that right now.
    """
    return exclusive(database.with_name(f".{database.name}.lock"))


def is_missing(database: Path) -> bool:
    """Whether there is nothing to lose; sqlite leaves an empty file where a writer only looked."""
    return not database.exists() or (database.is_file() and database.stat().st_size == 0)


def identity(database: Path | None) -> tuple[int, int] | None:
    """Tell one file from another that took its place; None where there is no file."""
    if database is None:
        return None
    try:
        found = database.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def check(database: Path) -> None:
    """Look whether sqlite can read a file at all; damage deeper inside shows when it is met.

    Raises:
        DamagedDatabase: it cannot.
    """
    if not database.is_file():
        raise DamagedDatabase(database, "it is no file")
    try:
        # Not read-only: the journal of a process that was killed while it wrote is rolled back by
        # whoever reads next, and sqlite refuses to read at all where that is not allowed.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if (reason := damage(error)) is not None:
            raise DamagedDatabase(database, reason) from error
        # Anything else, such as a lock, MLflow waits for or reports itself.


def damage(error: BaseException | None) -> str | None:
    """Find what is wrong with the file in an error of sqlite, or below one of MLflow; or None."""
    while error is not None:
        if isinstance(error, sqlite3.DatabaseError):
            lacks_table = str(error).startswith("no such table")
            if lacks_table or getattr(error, "sqlite_errorcode", None) in DAMAGE_CODES:
                return str(error)
        error = error.__cause__ or error.__context__
    return None


def create(database: Path, make_schema: Callable[[str], object]) -> None:
    """Make a database with MLflow's schema, whole or not at all.

    MLflow cannot go on in a file whose migrations were cut short by a kill.
    """
    for leftover in database.parent.glob(f".{database.name}.new*"):
        leftover.unlink()
    # Another name each time: MLflow keeps what it knows of a file as long as the process lives.
    fresh = database.with_name(f".{database.name}.new-{time.time_ns()}")
    make_schema(f"sqlite:///{fresh}")
    fresh.replace(database)


def artifact_place(database: Path, experiment: str) -> str:
    """Where the files of an experiment's runs lie, as a URI: beside the database."""
    return (database.parent / ARTIFACTS / experiment).as_uri()


def take_artifacts_along(database: Path) -> None:
    """Let a database that was moved or copied keep files beside itself again.

    MLflow stores absolute places. The copy would write among the files of its original, and the
    MLflow UI would show no picture of what was moved. Files that were left behind stay in use.
    """
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        stored = "SELECT experiment_id, name, artifact_location FROM experiments"
        for ident, name, old in connection.execute(stored).fetchall():
            new = artifact_place(database, name)
            if old == new or not _is_own(old, new) or _was_left_behind(old, new):
                continue
            changed = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
            connection.execute(changed, (new, ident))
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (new, len(old) + 1, ident, len(old) + 1, f"{old}/"),
            )


def _is_own(old: str | None, new: str) -> bool:
    """Whether a place was given by `artifact_place`, at another time; not by a user."""
    tail = "/".join(new.split("/")[-2:])
    return old is not None and old.startswith("file:") and old.endswith(f"/{tail}")


def _was_left_behind(old: str, new: str) -> bool:
    """Whether the files are still at the old place, and there only."""
    before, now = (Path(unquote(urlsplit(uri).path)) for uri in (old, new))
    return before.is_dir() and not now.is_dir()


def set_aside(database: Path) -> list[Path]:
    """Rename a database and the files of its runs; returns their new names.

    Raises:
        Busy: another process makes or moves it right now.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    parts = [database.with_name(database.name + ending) for ending in SIDE_FILES]
    with alone(database):
        return [
            part.rename(part.with_name(f"{part.name}.aside-{stamp}"))
            for part in (*parts, database.parent / ARTIFACTS)
            if part.exists()
        ]
