"""File of a sqlite tracking store: creation, damage, moves and setting aside.

Nothing is ever lost with it: everything in it is also in the runs directory and can be sent again.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gigatok.data.assets import cache_dir
from gigatok.files.durable import write_durably
from gigatok.names import ARTIFACTS
from orchestration.runs.files import exclusive

DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Error codes of sqlite about a wrong file; trying again does not help."""
SIDE_FILES = ("", "-journal", "-wal", "-shm")
"""Endings of the files that make up a database."""


class DamagedDatabase(ValueError):
    """Damage of a database file, which cannot be read; trying again does not help."""

    def __init__(self, database: Path, reason: str) -> None:
        super().__init__(f"{database} is damaged ({reason})")


def alone(database: Path) -> AbstractContextManager[None]:
    """Be the only process that creates, moves or sets aside a database.

    Raises:
        Busy: another process does that right now.
    """
    return exclusive(database.with_name(f".{database.name}.lock"))


def is_missing(database: Path) -> bool:
    """Tell whether there is nothing to lose; sqlite leaves an empty file after a mere look."""
    return not database.exists() or (database.is_file() and database.stat().st_size == 0)


def identity(database: Path | None) -> tuple[int, int] | None:
    """Tell one file from another that took its place; None if there is no file."""
    if database is None:
        return None
    try:
        found = database.stat()
    except FileNotFoundError:
        return None
    # A new file of the same name has another inode.
    return found.st_dev, found.st_ino


def check(database: Path) -> None:
    """Check whether sqlite can read a file at all; damage deeper inside shows up in use.

    Raises:
        DamagedDatabase: sqlite cannot read it.
    """
    if not database.is_file():
        raise DamagedDatabase(database, "it is no file")
    try:
        # Not read-only: the next reader rolls back the journal of a process that was killed while
        # writing, and sqlite refuses to read at all if that is not allowed.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if (reason := damage(error)) is not None:
            raise DamagedDatabase(database, reason) from error
        # Anything else, such as a lock, MLflow waits for or reports itself.


def damage(error: BaseException | None) -> str | None:
    """Find the damage of the file in an error of sqlite, or in a cause of an MLflow error."""
    while error is not None:
        if isinstance(error, sqlite3.DatabaseError):
            # A copy that was cut short may be a valid database without its later tables.
            lacks_table = str(error).startswith("no such table")
            if lacks_table or getattr(error, "sqlite_errorcode", None) in DAMAGE_CODES:
                return str(error)
        # MLflow wraps SQLAlchemy's error, which wraps sqlite's.
        error = error.__cause__ or error.__context__
    return None


def create(database: Path, version: str, make_schema: Callable[[str], object]) -> None:
    """Create a database with MLflow's schema, whole or not at all.

    MLflow cannot continue in a file whose migrations were cut short by a kill. They take two
    seconds and a thousand flushes, so an empty database of each version of MLflow is kept in the
    cache.

    Args:
        database: the file.
        version: of MLflow.
        make_schema: has MLflow make a database at a URI.
    """
    for leftover in database.parent.glob(f".{database.name}.new*"):
        leftover.unlink()
    # A new name each time: MLflow caches what it knows of a file for the life of the process.
    fresh = database.with_name(f".{database.name}.new-{time.time_ns()}")
    template = cache_dir() / "mlflow" / f"{version}.db"
    if template.is_file():
        shutil.copyfile(template, fresh)
    else:
        make_schema(f"sqlite:///{fresh}")
        with suppress(OSError):  # a cache that cannot be written
            write_durably(template, lambda path: shutil.copyfile(fresh, path))
    with closing(sqlite3.connect(fresh)) as connection, connection:
        # MLflow notes the working folder of the process that made the schema.
        place = "UPDATE experiments SET artifact_location = ?"
        connection.execute(place, (artifact_place(database, "Default"),))
    fresh.replace(database)


def artifact_place(database: Path, experiment: str) -> str:
    """Return the URI of the folder of an experiment's files: beside the database."""
    return (database.parent / ARTIFACTS / experiment).as_uri()


def take_artifacts_along(database: Path) -> None:
    """Point a database that was moved or copied to the files beside it.

    MLflow stores absolute places. A copy would write among the files of its original, and the
    MLflow UI would show no picture of a moved one. Files that were left behind stay in use.
    """
    # Seconds to wait while another process holds the lock.
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        stored = "SELECT experiment_id, name, artifact_location FROM experiments"
        for ident, name, old in connection.execute(stored).fetchall():
            new = artifact_place(database, name)
            if old == new or not _is_own(old, new) or _was_left_behind(old, new):
                continue
            changed = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?"
            connection.execute(changed, (new, ident))
            connection.execute(
                # By prefix: LIKE would read `_` and `%` of a path as wildcards.
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (new, len(old) + 1, ident, len(old) + 1, f"{old}/"),
            )
            if not _has_models(connection):
                continue
            connection.execute(
                "UPDATE logged_models SET artifact_location = "
                "? || substr(artifact_location, ?) "
                "WHERE experiment_id = ? AND substr(artifact_location, 1, ?) = ?",
                (new, len(old) + 1, ident, len(old) + 1, f"{old}/"),
            )


def _has_models(connection: sqlite3.Connection) -> bool:
    """Tell whether a database has the table of logged models, which came with MLflow 3."""
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'logged_models'"
    return bool(connection.execute(query).fetchone()[0])


def _is_own(old: str | None, new: str) -> bool:
    """Tell whether a place was given by `artifact_place` at an earlier time, not by a user."""
    # The folder of artifacts and the experiment below it.
    tail = "/".join(new.split("/")[-2:])
    return old is not None and old.startswith("file:") and old.endswith(f"/{tail}")


def _was_left_behind(old: str, new: str) -> bool:
    """Tell whether the files are still at the old place, and only there."""
    before, now = (Path(unquote(urlsplit(uri).path)) for uri in (old, new))
    return before.is_dir() and not now.is_dir()


def set_aside(database: Path) -> list[Path]:
    """Rename a database and the files of its runs; returns their new names.

    Raises:
        Busy: another process creates or moves it right now.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    parts = [database.with_name(database.name + ending) for ending in SIDE_FILES]
    with alone(database):
        return [
            part.rename(part.with_name(f"{part.name}.aside-{stamp}"))
            for part in (*parts, database.parent / ARTIFACTS)
            if part.exists()
        ]
