"""Requests of users: the default store, names of sweeps, and the error that says no."""

from __future__ import annotations

from pathlib import Path

from gigatok.names import study_name
from gigatok.text.places import DEFAULT_RUNS


class RequestError(ValueError):
    """Request that cannot be answered; the message says what to do instead."""


def store_uri(runs: Path, uri: str | None = None) -> str:
    """Choose the tracking store: the one that is given, or the database of a runs directory."""
    return uri or f"sqlite:///{runs / 'mlflow.db'}"


DEFAULT_URI = store_uri(DEFAULT_RUNS)


def sweep_name(given: str) -> str:
    """Name the sweep that is given as such or as its YAML file.

    Raises:
        RequestError: no sweep can be called so.
    """
    try:
        return study_name(given)
    except ValueError as error:
        raise RequestError(str(error)) from error
