"""Choosing the reader for a tracking URI, and saying what is wrong with one."""

from __future__ import annotations

import urllib.error
import urllib.request
from difflib import get_close_matches
from pathlib import Path

from analysis.store.interface import TrackingStore
from analysis.store.requests import RequestError
from gigatok.text.command_lines import command
from gigatok.text.credentials import shown, without_login


def open_store(uri: str) -> TrackingStore:
    """Choose the reader for a tracking URI.

    Raises:
        RequestError: the database or server does not exist, or the URI is a bare folder.
    """
    # Drivers of databases take a while to import, and the client of servers takes seconds.
    from analysis.store.databases import DIALECTS, Database, SqliteFile
    from analysis.store.servers import ClientStore

    # SQLAlchemy names the driver behind a plus, as in postgresql+psycopg2.
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


def unknown_sweep(store: TrackingStore, sweep: str, uri: str) -> RequestError:
    """Make the error for a sweep that the store does not hold, naming those it does."""
    names = sorted(store.sweeps())
    if not names:
        return RequestError(
            f"{shown(uri)} holds no sweep yet; run one with "
            f"`{command('orchestration.launch', f'sweeps/{sweep}.yaml')}`"
        )
    near = get_close_matches(sweep, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return RequestError(f"no sweep {sweep!r} in {shown(uri)}{hint} It holds: {', '.join(names)}")


def _existing(uri: str) -> Path:
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not path.is_file():
        raise RequestError(
            f"no tracking database at {path}; `{command('orchestration.launch', 'SWEEP')}` makes "
            "one, or name another with --tracking-uri"
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
