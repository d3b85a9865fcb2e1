"""Logins of tracking servers and databases, kept apart from the records for their owner alone.

Jobs on a cluster and later commands continue a launch, so they need the password that was in the
URL of the launch. Records do not hold it, because everybody who may read the runs directory can
read them. `<runs>/logins/<user id>.json`, with mode 0600, does: URL without login -> URL as it was
given. Nothing sends, copies or shows this file.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from gigatok.text.credentials import has_secret, mlflow_variables, without_login
from orchestration.runs.files import write_atomic
from orchestration.runs.records import Record, read_record
from orchestration.runs.state import Store


class Logins(Record):
    """Logins of one user of a runs directory."""

    urls: dict[str, str] = Field(default_factory=dict)
    """URL without login -> URL as it was given."""


def keep_login(store: Store, url: str | None) -> str | None:
    """Store the login of a URL for its owner alone; returns the URL that a record may hold."""
    if url is None or not has_secret(url):
        return url
    plain, file = without_login(url), _file(store)
    known = read_record(file, Logins) or Logins()
    if known.urls.get(plain) != url:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Two launches at once may lose one of two new logins; the later command then asks for it.
        changed = Logins(urls={**known.urls, plain: url})
        write_atomic(file, changed.model_dump_json(indent=1), private=True)
    return plain


def with_login(store: Store, url: str) -> str:
    """Give a recorded URL its login back; a URL without a stored login is returned unchanged.

    MLflow's own variables win over the stored login: the password may have been changed since.
    """
    is_server = url.startswith(("http://", "https://"))
    if has_secret(url) or (is_server and not _VARIABLES.isdisjoint(os.environ)):
        return url
    known = read_record(_file(store), Logins)
    return url if known is None else known.urls.get(url, url)


# Asked of the function that sets them, so that the two lists cannot drift apart.
_VARIABLES = {*mlflow_variables("http://name:password@host"), "MLFLOW_TRACKING_TOKEN"}


def _file(store: Store) -> Path:
    # One file per user: a shared runs directory has several, who cannot read each other's.
    return store.root / "logins" / f"{os.getuid()}.json"
