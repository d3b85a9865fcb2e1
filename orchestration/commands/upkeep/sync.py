"""`python -m orchestration sync [SWEEP…]`: send to MLflow what it lacks; runs nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.exits import EXIT_FAILED
from orchestration.runs.state import Store
from orchestration.study.syncing import send_all, set_databases_aside


def sync(
    sweeps: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Set the database aside and make it again.")
    ] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow; default: of each sweep, as launched.")
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Send what MLflow lacks of the sweeps that were launched; runs nothing."""
    store = Store(runs_dir)
    # All databases are set aside before the first is filled: sweeps may share one.
    if rebuild:
        for path in set_databases_aside(store, sweeps or (), tracking_uri):
            print(f"set aside {path}")
    whole = True
    for sent in send_all(store, sweeps or (), tracking_uri):
        print(sent)
        # All are tried: one server that does not answer says nothing about the next.
        whole &= sent.whole
    raise typer.Exit(0 if whole else EXIT_FAILED)
