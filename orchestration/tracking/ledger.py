"""Ledgers: what was sent to which tracking server, as small JSON files in `<runs>/tracking/`.

A ledger holds the MLflow run of a stage, trial or sweep, and the byte of the spool up to which all
was sent. It is written after the server has accepted a batch. A launcher that is killed in between
sends that batch again, and the server ignores each point that it has.

The ledgers of a database in the runs directory are named by its place there. So they stay valid if
the directory is spelled in another way, moved or copied.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
from pydantic import BaseModel, ConfigDict, Field

from gigatok.text.credentials import mlflow_variables, shown, without_login
from orchestration.plan.identity import digest
from orchestration.runs.files import exclusive, write_atomic
from orchestration.runs.leases import ProcessNumber, this_machine
from orchestration.runs.records import (
    R,
    Record,
    UnreadableRecord,
    parse_record,
    read_record,
    report_unreadable,
)

OPEN_STATUSES = frozenset({"RUNNING", "SCHEDULED"})
MOST_NAMED = 3
"""Skipped lines of a stage that are named; further ones are only counted."""


@dataclass(frozen=True)
class Destination:
    """Checked tracking URI.

    Attributes:
        uri: URI for MLflow, without login; a sqlite path is absolute, with links followed.
        shown: the same, for messages.
        database: the sqlite file; None for a server.
        name: folder of its ledgers, readable and unique; unused for a database in the runs
            directory.
        former_name: name of that folder in earlier versions.
        login: user name and password, as environment variables.
    """

    uri: str
    shown: str
    database: Path | None
    name: str
    former_name: str
    login: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


def parse_uri(uri: str) -> Destination:
    """Check a tracking URI.

    Raises:
        ValueError: the URI is neither `sqlite:///FILE` nor `http(s)://HOST[:PORT]`.
    """
    if uri.startswith("sqlite:"):
        file = uri.removeprefix("sqlite:///")
        # A database in memory ends with the process, and options behind "?" are not passed on.
        if file == uri or not file or ":memory:" in file or "?" in file or file.endswith("/"):
            raise ValueError(
                f"tracking URI {uri!r} does not name a database file; write "
                "sqlite:///runs/mlflow.db (relative) or sqlite:////data/mlflow.db (absolute)"
            )
        # Earlier versions did not follow links.
        path, spelled = Path(file).resolve(), Path(file).absolute()
        name, former = (f"{way.stem}-{digest(str(way))[:8]}" for way in (path, spelled))
        return Destination(f"sqlite:///{path}", f"sqlite:///{path}", path, name, former)
    plain = without_login(uri).rstrip("/")
    parts = urlsplit(plain)
    if parts.scheme in ("http", "https") and parts.hostname and _is_whole(plain):
        name = f"{parts.hostname}-{digest(plain)[:8]}"
        return Destination(plain, plain, None, name, name, mlflow_variables(uri))
    raise ValueError(f"tracking URI {shown(uri)!r} {_why_not(uri, parts.scheme)}")


def _is_whole(plain: str) -> bool:
    """Tell whether a URL without login is complete: an odd character in a password cuts it."""
    try:
        urlsplit(plain).port  # noqa: B018  (raises where it is no number)
    except ValueError:
        return False
    return "@" not in plain


def _why_not(uri: str, scheme: str) -> str:
    allowed = "use sqlite:///FILE or http://HOST:PORT"
    if scheme in ("http", "https") and urlsplit(without_login(uri)).hostname:
        return (
            "cannot be taken apart; in a password write / as %2F, # as %23, ? as %3F and @ as %40"
        )
    if scheme in ("http", "https"):
        return f"names no host; {allowed}"
    if scheme in ("", "file"):
        folder = urlsplit(uri).path.rstrip("/") or "runs"
        return (
            "is a folder, and MLflow no longer keeps runs in plain files; "
            f"use sqlite:///{folder}/mlflow.db, or http://HOST:PORT for a server"
        )
    return f"has the scheme {scheme!r}, which is not supported; {allowed} (`mlflow server`)"


class Skipped(Record):
    """Lines and values of a stage's spool that could not be sent, now or ever."""

    count: int = 0
    first: tuple[str, ...] = ()
    """Descriptions of the first ones: file, line, reason."""

    def and_more(self, problems: Iterable[str]) -> Skipped:
        """Count further ones."""
        found = list(problems)
        # A bad name comes again with every step, but is named once.
        first = tuple(dict.fromkeys((*self.first, *found)))[:MOST_NAMED]
        return Skipped(count=self.count + len(found), first=first)


class Entry(BaseModel):
    """Record of what was sent for one MLflow run."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Written before the run is created, and a tag of the run: finds it after a kill between."""
    run_id: str | None = None
    experiment: str | None = None
    stage: str | None = None
    born: float | None = None
    """Start of the stage's first attempt; another value means that the folder was made again."""
    positions: dict[str, int] = Field(default_factory=dict)
    """Spool file -> bytes sent."""
    sent: str | None = None
    """Signature of the state whose tags, scores and status were sent last."""
    status: str | None = None
    """MLflow status that was sent last."""
    skipped: Skipped = Field(default_factory=Skipped)


class Owner(BaseModel):
    """Process that keeps a sweep's runs up to date."""

    host: str
    machine: str = ""
    """Scope within which `pid` names one process; empty: recorded by earlier code."""
    pid: ProcessNumber
    pid_started: float

    @classmethod
    def me(cls) -> Owner:
        """Describe this process."""
        started = psutil.Process().create_time()
        return cls(
            host=socket.gethostname(),
            machine=this_machine(),
            pid=os.getpid(),
            pid_started=started,
        )

    def is_here(self) -> bool:
        """Tell whether the process runs on this machine, in this container."""
        return self.machine == this_machine() and not self.is_dead()

    def is_dead(self) -> bool:
        """Tell whether the process is known to be gone; being unseen from here is no proof."""
        if self.machine != this_machine():
            return False
        try:
            process = psutil.Process(self.pid)
            zombie = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        # A second of tolerance: psutil computes the time from clock ticks, which rounds.
        return zombie or abs(process.create_time() - self.pid_started) >= 1.0


class PlanEntry(BaseModel):
    """Record of what was sent for a sweep and its trials."""

    sweep: Entry = Field(default_factory=Entry)
    trials: dict[str, Entry] = Field(default_factory=dict)
    owner: Owner | None = None
    complete: bool = False
    """True if everything of the plan was sent, and every stage of it is complete."""
    stages: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Of a complete plan: stage key -> its run, and the mark of its folder when it was sent."""
    files: dict[str, str] = Field(default_factory=dict)
    """Files of the sweep's run that were sent -> a sha256 that changes with them."""
    protocols: dict[str, str] = Field(default_factory=dict)
    """Protocol tags of the sweep's run, which trials without one of their own share."""

    def entries(self) -> list[Entry]:
        """List the entries of the sweep and of all trials."""
        return [self.sweep, *self.trials.values()]


class Ledgers:
    """Ledgers of one destination."""

    def __init__(self, tracking: Path, destination: Destination) -> None:
        database = destination.database
        # The resolved path: `destination.database` has its links followed too.
        within = tracking.parent.resolve()
        self._is_own = database is not None and database.is_relative_to(within)
        names = [destination.name, destination.former_name]
        if database is not None and self._is_own:
            names.insert(0, quote(str(database.relative_to(within)), safe=""))
        self._root = tracking / names[0]
        self._database = database
        # Only once: a ledger under the present name is newer than any former one.
        if not self._root.exists():
            _take_over(self._root, [tracking / name for name in names[1:]])
        self.incomplete = self._is_own and not self._root.exists()
        """True if the database may hold runs of this store that no ledger knows."""

    def stage(self, key: str) -> Entry | None:
        """Read the ledger of a stage."""
        return self._load(self._file("stages", key), Entry)

    def plan(self, key: str) -> PlanEntry | None:
        """Read the ledger of a plan."""
        return self._load(self._file("plans", key), PlanEntry)

    def save_stage(self, key: str, entry: Entry) -> None:
        """Replace the ledger of a stage."""
        _save(self._file("stages", key), entry)

    def save_plan(self, key: str, entry: PlanEntry) -> None:
        """Replace the ledger of a plan."""
        _save(self._file("plans", key), entry)

    def save_skipped(self, key: str, skipped: Skipped) -> None:
        """Record for `all_skipped` what of a stage could not be sent."""
        # A file of its own: `status` reads few of these instead of every ledger.
        file = self._file("skipped", key)
        if skipped.count:
            _save(file, skipped)
        else:
            file.unlink(missing_ok=True)

    def all_skipped(self) -> dict[str, Skipped]:
        """Map stage keys to what could not be sent, from a folder that is mostly empty."""
        files = (self._root / "skipped").glob("*.json")
        found = {file.stem: read_record(file, Skipped) for file in files}
        return {key: skipped for key, skipped in found.items() if skipped is not None}

    def stage_keys(self) -> list[str]:
        """List the keys of all stages that have a ledger."""
        return sorted(path.stem for path in (self._root / "stages").glob("*.json"))

    def plan_keys(self) -> list[str]:
        """List the keys of all plans that have a ledger."""
        return sorted(path.stem for path in (self._root / "plans").glob("*.json"))

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Be the only process that sends a stage or plan; a stopped holder blocks nobody.

        Raises:
            Busy: another process, or another thread of this one, holds it.
        """
        with exclusive(self._root / "locks" / key):
            yield

    def runs_exist(self, runs: Iterable[str | None]) -> bool:
        """Tell whether a sqlite destination still has these runs, without importing MLflow.

        Returns True for a server, which would have to be asked.
        """
        wanted = set(runs)
        if None in wanted:
            return False
        if self._database is None:
            return True
        try:
            with closing(_open_existing(self._database)) as database:
                found = database.execute(
                    "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"
                )
                return wanted <= {row[0] for row in found}
        except sqlite3.Error:
            # No such file, or another schema: then MLflow itself has to check.
            return False

    def _file(self, kind: str, key: str) -> Path:
        return self._root / kind / f"{key}.json"

    def _load(self, path: Path, kind: type[R]) -> R | None:
        try:
            return parse_record(path, kind)
        except UnreadableRecord as error:
            # Its content is found in the database, or sent again, which changes nothing.
            report_unreadable(path, error)
            self.incomplete = self._is_own
            return None


def _open_existing(database: Path) -> sqlite3.Connection:
    # Writable, since only then sqlite rolls back what a killed process left; nothing is written.
    return sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True, timeout=2.0)


def _take_over(folder: Path, former: Iterable[Path]) -> None:
    """Rename the ledgers of an earlier version to their present name."""
    for earlier in former:
        if earlier.is_dir():
            with suppress(OSError):  # Such as a runs directory that is only read.
                earlier.rename(folder)
            return


def _save(path: Path, entry: BaseModel) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, entry.model_dump_json(indent=1))
