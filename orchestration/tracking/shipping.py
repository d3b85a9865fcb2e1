"""Shipping: one thread of the launcher keeps MLflow up to date with a plan while it runs.

Workers only write to their stage's spool. The thread imports MLflow, owns the connection, and
sends what is new every two seconds; the run loop only leaves notes for it. A server that is down,
at launch or later, stops nothing: everything waits in the spools, is tried again with growing
pauses, and is sent by the next launch at the latest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from gigatok.text.command_lines import command
from gigatok.text.credentials import hide_passwords
from orchestration.plan.graph import Plan
from orchestration.runs.files import Busy
from orchestration.runs.records import UnreadableRecord, report_unreadable
from orchestration.runs.state import Store
from orchestration.tracking.ledger import Entry, Ledgers, PlanEntry, Skipped, parse_uri
from orchestration.tracking.mlflow_server import Server
from orchestration.tracking.spool import LoggedPicture, SpoolReader
from orchestration.tracking.sqlite_file import DamagedDatabase, damage
from orchestration.tracking.stage_runs import StageRuns, complete_mark, view_stage
from orchestration.tracking.sweep_runs import Findings, SweepRuns

SHIP_SECONDS = 2.0
"""Pause between two rounds of sending."""
BUSY_SECONDS = 0.2
"""Pause while another launcher is sending the same thing."""
# Pauses double from the first to the last; a launcher that leaves must not wait that long.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, LEAVING_RETRY_SECONDS = 1.0, 15.0, 1.0

_log = logging.getLogger(__name__)


def default_uri(store: Store) -> str:
    """Return the URI of a sqlite file in the runs directory."""
    return f"sqlite:///{store.root / 'mlflow.db'}"


def uri_to_record(store: Store, uri: str | None) -> str | None:
    """Leave out a URI that names the runs directory's own database, which moves along with it.

    Raises:
        ValueError: MLflow cannot keep runs at this URI.
    """
    own = uri is not None and parse_uri(uri).uri == parse_uri(default_uri(store)).uri
    return None if own else uri


def all_skipped(store: Store, uri: str | None) -> dict[str, Skipped]:
    """Map stage keys to what could not be sent to a destination; None: the default one."""
    return Ledgers(store.tracking, parse_uri(uri or default_uri(store))).all_skipped()


def has_file(store: Store, uri: str, plan: Plan, path: str) -> bool:
    """Tell whether a file was added to the run of a plan by `send_files`, whatever its content."""
    ledger = Ledgers(store.tracking, parse_uri(uri)).plan(plan.key)
    return ledger is not None and path in ledger.files


def send_files(store: Store, uri: str, plan: Plan, files: Mapping[str, bytes]) -> str | None:
    """Add files to the run of a plan, such as its figure, unless it has them.

    Args:
        store: the runs directory.
        uri: where MLflow keeps the runs.
        plan: a plan that was sent.
        files: path below the run's files -> content.

    Returns:
        The reason why that failed; None if it did not.
    """
    destination = parse_uri(uri)
    ledgers = Ledgers(store.tracking, destination)
    try:
        with ledgers.hold(plan.key):
            ledger = ledgers.plan(plan.key)
            if ledger is None or ledger.sweep.run_id is None:
                return None
            run_id = ledger.sweep.run_id
            hashes = {path: sha256(content).hexdigest() for path, content in files.items()}
            if hashes.items() <= ledger.files.items():
                return None
            server = Server(destination, plan.sweep.name)
            for path, content in files.items():
                server.upload(run_id, path, content)
            ledger.files |= hashes
            ledgers.save_plan(plan.key, ledger)
    except Exception as error:
        # Any error: the files lie on disk, and only MLflow lacks them.
        return f"{destination.shown}: {_describe(error)}"
    return None


@dataclass(frozen=True)
class Unsent:
    """Points and pictures that wait on disk for the server; false if nothing waits."""

    settled: bool
    points: int
    pictures: int
    stages: int
    """Number of stages of the plan that have something unsent."""
    runs_dir: Path
    error: str
    cure: str
    """Advice, as the end of the sentence."""

    def __bool__(self) -> bool:
        return not self.settled

    def __str__(self) -> str:
        what = f"{self.points} points and {self.pictures} pictures of {self.stages} stages wait"
        if self.stages == 0:  # The ledgers do not know that the database was lost.
            what = "everything is kept"
        return f"not sent to MLflow ({self.error}): {what} in {self.runs_dir}; {self.cure}"


class Tracking:
    """Tracking of one plan at one tracking URI.

    All methods are for the launcher's thread; only `prepare` and `finish` wait.
    """

    def __init__(
        self,
        uri: str,
        store: Store,
        plan: Plan,
        command: str | None = None,
        *,
        send_patch: bool = True,
        launched: float | None = None,
    ) -> None:
        """Check the URI; connects to nothing.

        Args:
            uri: `sqlite:///FILE` or `http(s)://HOST[:PORT]`.
            store: the runs directory.
            plan: the launched plan.
            command: the launcher's command line, for the record.
            send_patch: whether uncommitted changes of the code are sent.
            launched: UNIX seconds of the launch; None: now, by this process.

        Raises:
            ValueError: MLflow cannot keep runs at this URI.
        """
        self._destination = parse_uri(uri)
        self._store = store
        self._plan = plan
        self._ledgers = Ledgers(store.tracking, self._destination)
        self._stages = StageRuns(store, self._ledgers, send_patch=send_patch)
        self._sweep = SweepRuns(plan, self._ledgers, self._stages, command, launched)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        # Guards `_pending` only: all else is written by one thread and read as a whole by the
        # other.
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._tried, self._ready, self._leaving = (threading.Event() for _ in range(3))
        self._deadline = 0.0
        self._queued = False
        self._settled = False
        self._damaged = False
        self._unreadable: dict[str, str] = {}
        """Stage key -> reason why its folder cannot be read."""
        self.error: str | None = None
        """Reason why the last round of sending failed; None if it succeeded."""
        self.behind = 0
        """Points and pictures that could not be sent, as of the last round."""

    def is_current(self) -> bool:
        """Tell whether the whole plan is complete and was sent, without importing MLflow.

        A sqlite file is asked for the runs themselves. A server is trusted to have kept them.
        """
        known = self._ledgers.plan(self._plan.key)
        if known is None or not known.complete or not self._sweep.findings.sent_in(known):
            return False
        look = StageRuns(self._store, self._ledgers)
        runs = [entry.run_id for entry in known.entries()]
        for key in self._plan.stages:
            run = self._unchanged_run(key, known, look)
            if run is None:
                entry = self._current_entry(key, look)
                if entry is None:
                    return False
                run = entry.run_id
            runs.append(run)
        return self._ledgers.runs_exist(runs)

    def _unchanged_run(self, key: str, known: PlanEntry, look: StageRuns) -> str | None:
        """Return the run of a stage that is as it was when the plan was complete and sent."""
        run, mark = known.stages.get(key, (None, None))
        folder = look.folder(key, self._plan.stages[key].stage)
        if mark is None or folder is None:
            return None
        return run if complete_mark(folder) == mark else None

    def has_owner(self) -> bool:
        """Tell whether a launch of the plan runs on this machine and keeps its runs up to date."""
        known = self._ledgers.plan(self._plan.key)
        return known is not None and known.owner is not None and known.owner.is_here()

    def tag_sweep(self, tags: Mapping[str, str]) -> str | None:
        """Set tags on the plan's sweep run, if there is one; returns why that failed, or None.

        It is for a launch that sends nothing else.
        """
        known = self._ledgers.plan(self._plan.key)
        if known is None or known.sweep.run_id is None:
            return None
        try:
            Server(self._destination, self._plan.sweep.name).log(known.sweep.run_id, tags=tags)
        except Exception as error:
            # Any error: the tags are also on disk, and the message says what MLflow lacks.
            return f"{self._destination.shown}: {_describe(error)}"
        return None

    def prepare(self, timeout: float = 30.0) -> bool:
        """Make database and runs before any worker starts, and begin to send.

        Returns:
            True if MLflow answered. If not, `error` says why; the launch may go on, because
            everything is kept on disk and sending is tried again.
        """
        # Daemonic: a server that hangs must not keep the launcher from ending.
        self._thread = threading.Thread(target=self._loop, name="tracking", daemon=True)
        self._thread.start()
        self._tried.wait(timeout)
        if not self._tried.is_set():
            self.error = f"no answer from {self._destination.shown} within {timeout:g} s"
        return self._ready.is_set()

    def notify(self, keys: Iterable[str]) -> None:
        """Note that these stages run or have changed."""
        with self._lock:
            self._pending.update(keys)

    def grow(self, plan: Plan) -> None:
        """Send a plan that has all trials of this one and more."""
        self._plan = plan

    def tell(self, findings: Findings) -> None:
        """Send the findings about the sweep as a whole; they replace earlier ones."""
        self._sweep.findings = findings

    def expect(self, forecast: str) -> None:
        """Send how long the plan will take; it replaces earlier forecasts."""
        self._sweep.forecast = forecast

    def note(self) -> str:
        """Return a line for the display; empty while everything is sent."""
        if self.error is None:
            return ""
        return f"MLflow is behind by {self.behind} points, they are kept on disk: {self.error}"

    def finish(self, timeout: float = 60.0, *, queued: bool = False) -> Unsent:
        """Send what is left, close all runs that no process continues, and stop.

        A stage that another launcher or a cluster still runs stays RUNNING, and so do its trials.

        Args:
            timeout: seconds after which to give up.
            queued: jobs wait in a cluster's queue: their trials are scheduled, not killed.

        Returns:
            Everything that could not be sent; a later launch sends it.
        """
        assert self._thread is not None, "prepare() comes first"
        self._queued = queued
        self._deadline = time.monotonic() + timeout
        self._leaving.set()
        self._thread.join(timeout)
        if self._settled and not self._unreadable:
            return Unsent(True, 0, 0, 0, self._store.root, "", "")
        points, pictures, stages = self._count_unsent()
        error = self.error or f"no answer within {timeout:g} s"
        cure = "the sweep's controller sends them" if queued else "launch again to send them"
        if self._damaged:
            cure = f"`{self._rebuild_command()}` sets the file aside and sends everything again"
        return Unsent(False, points, pictures, stages, self._store.root, error, cure)

    def _rebuild_command(self) -> str:
        words = ["sync", "--rebuild", "--runs-dir", str(self._store.root)]
        if self._destination.uri != parse_uri(default_uri(self._store)).uri:
            words += ["--tracking-uri", self._destination.shown]
        return command("orchestration", *words)

    # The sending thread

    def _loop(self) -> None:
        pause = 0.0
        while not self._settled:
            pause = self._attempt(pause)
            if self._leaving.is_set():
                pause = min(pause, LEAVING_RETRY_SECONDS)
                # A damaged file does not become readable by waiting.
                if self._damaged or time.monotonic() + pause > self._deadline:
                    return
                time.sleep(0.0 if self._settled else pause)
            else:
                self._leaving.wait(pause)

    def _attempt(self, pause: float) -> float:
        """Send once; returns the seconds until the next time."""
        # Read once: a round must not begin as one kind and end as the other.
        leaving = self._leaving.is_set()
        try:
            self._round(leaving)
        except Busy:
            return BUSY_SECONDS
        except Exception as error:
            # Any error: it must not stop the stages. It is shown, and a new connection is tried.
            self._fail(error)
            return min(LAST_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, 2 * pause))
        self.error = next(iter(self._unreadable.values()), None)
        self.behind, self._settled, self._damaged = 0, leaving, False
        self._tried.set()
        return SHIP_SECONDS if not leaving else 0.0

    def _fail(self, error: Exception) -> None:
        """Note why a round failed; must not fail itself, or nothing would be sent any more."""
        _log.debug("sending to %s failed", self._destination.shown, exc_info=error)
        replaced = self._server is not None and self._server.was_replaced()
        self._server = None
        reason = None if replaced else damage(error)
        self._damaged = reason is not None or isinstance(error, DamagedDatabase)
        if reason is not None and self._destination.database is not None:
            error = DamagedDatabase(self._destination.database, reason)
        points, pictures, _ = self._count_unsent()
        self.behind = points + pictures
        shown = f"{self._destination.shown}: {_describe(error)}"
        self.error = str(error) if self._damaged else shown
        self._tried.set()

    def _round(self, leaving: bool) -> None:
        if self._server is not None and self._server.was_replaced():
            # Somebody deleted the database: all that was in it is on disk, and goes to a new one.
            self._server = None
        if self._server is None:
            self._server = self._connect()
            self._ready.set()
            self.notify(self._plan.stages)
        # A last look at every stage: the notes of some may have come after their last round.
        if leaving:
            self.notify(self._plan.stages)
        self._sweep.grow(self._server, self._plan)
        self._stages.look_again()
        problem = self._ship(self._server, self._take())
        if leaving:
            self._close_unreadable(self._server)
        self._sweep.update(self._server, leaving=leaving, queued=self._queued)
        # While the launch goes on, another launcher that is busy is simply asked again.
        if problem is not None and (leaving or not isinstance(problem, Busy)):
            raise problem

    def _connect(self) -> Server:
        server = Server(self._destination, self._plan.sweep.name)
        self._sweep.open(server)
        self._sweep.close_abandoned(server)
        self._close_abandoned_stages(server)
        return server

    def _take(self) -> list[str]:
        with self._lock:
            taken = [key for key in self._plan.stages if key in self._pending]
            self._pending.clear()
        return taken

    def _ship(self, server: Server, keys: list[str]) -> Exception | None:
        """Send these stages; returns the first problem that the other stages need not wait for.

        Raises:
            Exception: the server does not answer at all.
        """
        first: Exception | None = None
        for key in keys:
            try:
                self._ship_stage(server, key, self._plan.stages[key].stage)
            except Exception as problem:
                # The stage stays noted, whatever happens to the others.
                self.notify([key])
                if not isinstance(problem, Busy) and not server.is_reachable():
                    raise
                # A busy launcher is the least of several problems: any other is reported before
                # it.
                first = first if first and not isinstance(first, Busy) else problem
        return first

    def _ship_stage(self, server: Server, key: str, stage: str) -> None:
        """Send a stage; one whose folder cannot be read is reported and left out."""
        try:
            self._stages.ship(server, key, stage, self._sweep.birth_tags())
            self._unreadable.pop(key, None)
        except (UnreadableRecord, ValidationError) as error:
            folder = self._stages.folder(key, stage)
            assert folder is not None, "there is a record in it"
            self._unreadable[key] = f"{folder.path}: {_describe(error)}"
            report_unreadable(folder.path, self._unreadable[key])

    def _close_unreadable(self, server: Server) -> None:
        """Close the runs of stages whose folder cannot be read, as no later round would."""
        for key in self._unreadable:
            self._stages.close(server, key)

    def _close_abandoned_stages(self, server: Server) -> None:
        """Update runs of other plans' stages that no process runs any more."""
        for key in self._ledgers.stage_keys():
            entry = self._ledgers.stage(key)
            if key in self._plan.stages or not (entry and entry.status == "RUNNING"):
                continue
            folder = self._stages.folder(key, str(entry.stage))
            if folder is None:
                continue
            try:
                if folder.state() != "RUNNING":
                    self._stages.ship(server, key, str(entry.stage), self._sweep.birth_tags())
            except (UnreadableRecord, ValidationError) as error:
                report_unreadable(folder.path, f"{folder.path}: {_describe(error)}")
                self._stages.close(server, key)

    # What the folders and ledgers say

    def _current_entry(self, key: str, look: StageRuns) -> Entry | None:
        """Return a stage's ledger entry if everything of the stage was sent."""
        entry = self._ledgers.stage(key)
        folder = look.folder(key, self._plan.stages[key].stage)
        try:
            view = None if folder is None else view_stage(folder)
        except (UnreadableRecord, ValidationError):
            return None
        if entry is None or view is None or entry.sent != view.signature:
            return None
        return None if SpoolReader(view.folder).has_more(entry.positions) else entry

    def _count_unsent(self) -> tuple[int, int, int]:
        """Count points, pictures, and stages with anything unsent."""
        points = pictures = stages = 0
        look = StageRuns(self._store, self._ledgers)
        for key, stage in self._plan.stages.items():
            try:
                if look.folder(key, stage.stage) is None or self._current_entry(key, look):
                    continue
                items = look.unsent(key, stage.stage)
            except Exception as error:
                # Counting only informs; it must not make anything worse.
                _log.debug("the unsent points of %s are unknown", key, exc_info=error)
                items = []
            waiting = sum(isinstance(item, LoggedPicture) for item in items)
            points += len(items) - waiting
            pictures += waiting
            stages += 1
        return points, pictures, stages


def _describe(error: BaseException) -> str:
    """Describe the root cause in one line, without credentials."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    text = hide_passwords(str(error)).partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}"
