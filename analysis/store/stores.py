"""What a tracking store is asked, and which reader answers: `databases.py` or `servers.py`.

Every reader returns the same `Records`; `runs.py` makes the table. Nothing here writes.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Protocol

from gigatok.credentials import mlflow_variables, shown, without_login
from gigatok.names import study_name

if TYPE_CHECKING:
    import polars as pl
    from mlflow import MlflowClient

    from analysis.store.records import Records

DEFAULT_URI = "sqlite:///runs/mlflow.db"
PARENT_TAG = "mlflow.parentRunId"
Stamp = tuple[str, str]
"""Which store, and what state its contents are in."""


class RequestError(ValueError):
    """What was asked for cannot be answered; the message says what to do instead."""


@dataclass(frozen=True)
class Launch:
    """A sweep run: one plan of one sweep."""

    run_id: str
    sweep: str
    started: int
    """Milliseconds since 1970."""
    tags: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """What `runs.py` asks of a tracking store. Deleted runs and experiments do not exist."""

    def sweeps(self) -> list[str]:
        """Names of the experiments."""

    def launches(self, sweep: str | None) -> list[Launch]:
        """The sweep runs of one experiment or of all, one per plan that was launched."""

    def trials(self, launches: Sequence[Launch]) -> tuple[Records, Records]:
        """The trial runs below some sweep runs, and the stage runs that those link to."""

    def stages(self, run_ids: pl.Series) -> Records:
        """Runs of any experiment by id: their times and tags."""

    def curves(self, run_ids: Sequence[str], metric: str) -> pl.DataFrame:
        """Every logged point of one metric, repeated steps included: `CURVE_SCHEMA`."""

    def all_curves(self, run_ids: Sequence[str]) -> pl.DataFrame:
        """Every logged point of every metric: `CURVE_SCHEMA` and `key`."""

    def artifact_root(self, run_id: str) -> str | None:
        """Where a run's files are, as a URI; None where there is no such run."""

    def stamp(self) -> Stamp | None:
        """Changes whenever the contents do; None where that cannot be told without reading."""


def open_store(uri: str) -> Store:
    """Choose the reader for a tracking URI.

    Raises:
        RequestError: the database or server does not exist, or the URI is a bare folder.
    """
    from analysis.store.databases import DIALECTS, Database, SqliteFile
    from analysis.store.servers import ClientStore

    scheme = uri.partition(":")[0].partition("+")[0]
    if uri.startswith("sqlite:///"):
        return SqliteFile(_existing(uri))
    if scheme in DIALECTS:
        return Database(uri)
    if scheme in ("http", "https"):
        _reach(uri)
    elif "://" not in uri or scheme == "file":
        raise RequestError(
            f"tracking URI {shown(uri)!r} is not supported: give sqlite:///PATH or http(s)://HOST "
            "(MLflow's folder store is not read)"
        )
    return ClientStore(uri)


def sweep_name(given: str) -> str:
    """The name of a sweep given as such or as its YAML file.

    Raises:
        RequestError: no sweep can be called so.
    """
    try:
        return study_name(given)
    except ValueError as error:
        raise RequestError(str(error)) from error


def connect(uri: str) -> MlflowClient:
    """Open MLflow's client; the login goes by the environment, not inside the URL.

    The client repeats the URL in its errors.
    """
    from mlflow import MlflowClient  # takes seconds; databases never pay

    os.environ.update(mlflow_variables(uri))
    plain = without_login(uri) if uri.startswith(("http://", "https://")) else uri
    return MlflowClient(tracking_uri=plain)


def unknown_sweep(store: Store, sweep: str, uri: str) -> RequestError:
    """The error for a sweep that the store does not hold, naming those it does."""
    names = sorted(store.sweeps())
    if not names:
        return RequestError(
            f"{shown(uri)} holds no sweep yet; run one with "
            f"`python -m orchestration.launch {quote(f'sweeps/{sweep}.yaml')}`"
        )
    near = get_close_matches(sweep, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return RequestError(f"no sweep {sweep!r} in {shown(uri)}{hint} It holds: {', '.join(names)}")


def _existing(uri: str) -> Path:
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
        urllib.request.urlopen(f"{without_login(uri).rstrip('/')}/health", timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answered; a proxy may hide the health page
    except OSError as error:
        raise RequestError(f"no tracking server answers at {shown(uri)}: {error}") from error
