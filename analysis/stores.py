"""Reading a tracking store: sqlite by direct SQL, anything else through the MLflow client.

Both readers return the same records; `runs.py` makes the table. Nothing here writes.
"""

from __future__ import annotations

import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from gigatok.names import KIND_SWEEP, KIND_TRIAL, TAG_KIND

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///runs/mlflow.db"
PARENT_TAG = "mlflow.parentRunId"
PAGE = 1000
"""Runs per request; the client's own default, small enough for slow servers."""


RUNS_PER_QUERY = 200
"""Run ids in one query or filter."""


class RequestError(ValueError):
    """What was asked for cannot be answered; the message says what to do instead."""


@dataclass(frozen=True)
class RawRun:
    """One MLflow run as stored: every value of params and tags is a string."""

    run_id: str
    started: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


CurvePoint = tuple[str, int, int, float]
"""Run id, step, timestamp in milliseconds, value."""


class Store(Protocol):
    """What `runs.py` asks of a tracking store. Deleted runs and experiments do not exist."""

    def sweeps(self) -> list[str]:
        """Names of the experiments."""

    def sweep_runs(self, sweep: str) -> list[RawRun]:
        """The sweep runs of an experiment, one per plan that was launched."""

    def trials(self, sweep: str, parents: Sequence[str]) -> list[RawRun]:
        """The trial runs below some sweep runs."""

    def tags(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tags of runs of any experiment, by run id."""

    def curves(self, run_ids: Sequence[str], metric: str) -> list[CurvePoint]:
        """Every logged point of one metric, repeated steps included."""


def open_store(uri: str) -> Store:
    """Choose the reader for a tracking URI.

    Raises:
        RequestError: the database or server does not exist, or the URI is a bare folder.
    """
    if uri.startswith("sqlite:///"):
        return SqliteStore(_database(uri))
    if uri.startswith(("http://", "https://")):
        _reach(uri)
    elif "://" not in uri or uri.startswith("file:"):
        raise RequestError(
            f"tracking URI {uri!r} is not supported: give sqlite:///PATH or http(s)://HOST "
            "(MLflow's folder store is not read)"
        )
    return ClientStore(uri)


def unknown_sweep(store: Store, sweep: str, uri: str) -> RequestError:
    """The error for a sweep that the store does not hold, naming those it does."""
    names = sorted(store.sweeps())
    if not names:
        return RequestError(
            f"{uri} holds no sweep yet; run one with "
            f"`python -m orchestration.launch sweeps/{sweep}.yaml`"
        )
    near = get_close_matches(sweep, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return RequestError(f"no sweep {sweep!r} in {uri}{hint} It holds: {', '.join(names)}")


def _database(uri: str) -> Path:
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_file():
        raise RequestError(
            f"no tracking database at {path}; `python -m orchestration.launch SWEEP` makes one, "
            "or name another with --tracking-uri"
        )
    return path


def _reach(uri: str) -> None:
    """Fail within seconds: the client retries an unreachable server for minutes."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answered; a proxy may hide the health page
    except OSError as error:
        raise RequestError(f"no tracking server answers at {uri}: {error}") from error


@dataclass(frozen=True)
class SqliteStore:
    """A few set-based queries on MLflow's own tables; the client needs seconds for the same."""

    path: Path

    def sweeps(self) -> list[str]:
        """Names of the experiments."""
        query = "SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND name != ?"
        with self._connect() as db:
            return [name for (name,) in db.execute(query, ["Default"])]

    def sweep_runs(self, sweep: str) -> list[RawRun]:
        """The sweep runs of an experiment."""
        return self._runs(_OF_KIND, [TAG_KIND, KIND_SWEEP, sweep])

    def trials(self, sweep: str, parents: Sequence[str]) -> list[RawRun]:
        """The trial runs below some sweep runs."""
        marks = ", ".join("?" * len(parents))
        below = f"{_OF_KIND} AND r.run_uuid IN ({_CHILDREN.format(marks=marks)})"
        return self._runs(below, [TAG_KIND, KIND_TRIAL, sweep, PARENT_TAG, *parents])

    def curves(self, run_ids: Sequence[str], metric: str) -> list[CurvePoint]:
        """Every logged point of one metric."""
        query = (
            "SELECT run_uuid, step, timestamp, value, is_nan FROM metrics "
            "WHERE run_uuid IN ({marks}) AND key = ?"
        )
        rows = self._chunked(query, run_ids, metric)
        return [(run, step, time, _number(value, nan)) for run, step, time, value, nan in rows]

    def tags(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tags of runs of any experiment, by run id."""
        query = (
            "SELECT t.run_uuid, t.key, t.value FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid "
            "WHERE t.run_uuid IN ({marks}) AND r.lifecycle_stage = ?"
        )
        found: dict[str, dict[str, str]] = {}
        for run, key, value in self._chunked(query, run_ids, "active"):
            found.setdefault(run, {})[key] = value
        return found

    def _chunked(self, query: str, run_ids: Sequence[str], last: str) -> list[Any]:
        """Run a query for many runs; sqlite limits the arguments of one."""
        rows = []
        with self._connect() as db:
            for ids in _chunks(run_ids):
                marks = ", ".join("?" * len(ids))
                rows += db.execute(query.format(marks=marks), [*ids, last]).fetchall()
        return rows

    def _runs(self, select: str, arguments: Sequence[str]) -> list[RawRun]:
        with self._connect() as db:
            started = dict(db.execute(f"SELECT r.run_uuid, r.start_time {select}", arguments))
            found = {run: RawRun(run, time or 0, {}, {}, {}) for run, time in started.items()}
            where = f"WHERE run_uuid IN (SELECT r.run_uuid {select})"
            for name in ("tags", "params"):
                query = f"SELECT run_uuid, key, value FROM {name} {where}"
                for run, key, value in db.execute(query, arguments):
                    getattr(found[run], name)[key] = value
            query = f"SELECT run_uuid, key, value, is_nan FROM latest_metrics {where}"
            for run, key, value, nan in db.execute(query, arguments):
                found[run].metrics[key] = _number(value, nan)  # type: ignore[index]
        return list(found.values())

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        address = f"file:{quote(str(self.path))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=20)) as db:
            try:
                yield db
            except sqlite3.DatabaseError as error:
                raise RequestError(
                    f"{self.path} cannot be read as an MLflow database: {error}"
                ) from error


_OF_KIND = """
FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = ? AND k.value = ?
WHERE e.name = ? AND e.lifecycle_stage = 'active' AND r.lifecycle_stage = 'active'
"""
_CHILDREN = "SELECT run_uuid FROM tags WHERE key = ? AND value IN ({marks})"


def _number(value: float, is_nan: bool) -> float:
    """Undo the store's encoding: NaN as (0, is_nan), infinity as the largest float."""
    if is_nan:
        return float("nan")
    return float("inf") * value if abs(value) >= sys.float_info.max else float(value)


class ClientStore:
    """Paged searches through `MlflowClient`: for tracking servers."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient  # takes seconds; sqlite readers never pay

        self._client: MlflowClient = MlflowClient(tracking_uri=uri)

    def sweeps(self) -> list[str]:
        """Names of the experiments."""
        names = [e.name for e in _pages(self._client.search_experiments)]
        return [name for name in names if name != "Default"]

    def sweep_runs(self, sweep: str) -> list[RawRun]:
        """The sweep runs of an experiment."""
        return self._search(sweep, f"tags.`{TAG_KIND}` = '{KIND_SWEEP}'")

    def trials(self, sweep: str, parents: Sequence[str]) -> list[RawRun]:
        """The trial runs below some sweep runs; one search each, as MLflow filters lack OR."""
        kind = f"tags.`{TAG_KIND}` = '{KIND_TRIAL}'"
        filters = (f"{kind} AND tags.`{PARENT_TAG}` = '{parent}'" for parent in parents)
        return [run for text in filters for run in self._search(sweep, text)]

    def curves(self, run_ids: Sequence[str], metric: str) -> list[CurvePoint]:
        """Every logged point of one metric."""
        return [
            (run, m.step, m.timestamp, _number(m.value, False))
            for run in run_ids
            for m in self._client.get_metric_history(run, metric)
        ]

    def tags(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tags of runs of any experiment, by run id."""
        everywhere = [e.experiment_id for e in _pages(self._client.search_experiments)]
        found: dict[str, dict[str, str]] = {}
        for ids in _chunks(run_ids):
            text = f"attributes.run_id IN ({', '.join(map(repr, ids))})"
            search = self._client.search_runs
            for run in _pages(search, experiment_ids=everywhere, filter_string=text):
                found[run.info.run_id] = dict(run.data.tags)
        return found

    def _search(self, sweep: str, text: str) -> list[RawRun]:
        experiment = self._client.get_experiment_by_name(sweep)
        if experiment is None or experiment.lifecycle_stage != "active":
            return []
        found = _pages(
            self._client.search_runs,
            experiment_ids=[experiment.experiment_id],
            filter_string=text,
        )
        return [_raw(run) for run in found]


def _chunks(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(run_ids), RUNS_PER_QUERY):
        yield run_ids[start : start + RUNS_PER_QUERY]


def _pages(search: Any, **arguments: object) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=PAGE, page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def _raw(run: Run) -> RawRun:
    metrics = {key: _number(value, False) for key, value in run.data.metrics.items()}
    return RawRun(
        run.info.run_id,
        run.info.start_time or 0,
        dict(run.data.tags),
        dict(run.data.params),
        metrics,
    )
