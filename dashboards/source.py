"""The store that a page shows, and how its command line says so."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from gigatok.names import MLFLOW_MODE
from gigatok.text.credentials import shown, without_login

MLFLOW_URL = "http://127.0.0.1:5000"
"""Address at which `mlflow ui` listens unless told otherwise."""


@dataclass(frozen=True)
class PageSource:
    """Store, and what links to it.

    Attributes:
        uri: of the tracking store.
        runs_dir: files on this machine are shown from below this folder only.
        mlflow_url: where links to runs lead.
        token: what an address must hold for stop and retry; "": the page offers neither.
    """

    uri: str
    runs_dir: Path
    mlflow_url: str
    token: str = field(default="", repr=False)

    @classmethod
    def of(
        cls, runs_dir: Path, uri: str | None, mlflow_url: str | None = None, token: str = ""
    ) -> PageSource:
        """Fill in what was not said: the store in the runs directory, and MLflow's usual port."""
        chosen = uri or f"sqlite:///{runs_dir / 'mlflow.db'}"
        is_server = chosen.startswith(("http://", "https://"))
        # A tracking server has MLflow's UI at the same address.
        return cls(chosen, runs_dir, (mlflow_url or (chosen if is_server else MLFLOW_URL)), token)

    def run_url(self, experiment: str, run_id: str) -> str:
        """Build the address of a run in the MLflow UI, without the user's password."""
        server = without_login(self.mlflow_url).rstrip("/")
        # With its experiment: an address without it is redirected, and loses the mode.
        return f"{server}/#/experiments/{experiment}/runs/{run_id}?{MLFLOW_MODE}"

    @property
    def mlflow_command(self) -> str:
        """Build the command that starts the MLflow UI; empty where a server is there already."""
        if self.uri.startswith(("http://", "https://")):
            return ""
        return f"mlflow ui --backend-store-uri {quote(shown(self.uri))}"

    def arguments(self) -> list[str]:
        """Build the command line that `parse` reads."""
        places = [f"--runs-dir={self.runs_dir}", f"--mlflow-url={self.mlflow_url}"]
        # With `=`: a value that begins with a dash would be read as an option of its own.
        return [*places, f"--tracking-uri={self.uri}", f"--token={self.token}"]


def parse(arguments: Sequence[str]) -> PageSource:
    """Read `PageSource.arguments()`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--tracking-uri")
    parser.add_argument("--mlflow-url")
    parser.add_argument("--token", default="")
    given = parser.parse_args(arguments)
    return PageSource.of(given.runs_dir, given.tracking_uri, given.mlflow_url, given.token)
