"""Requests of users: the default store, names of sweeps, and the error that says no."""

from __future__ import annotations

from gigatok.names import study_name

DEFAULT_URI = "sqlite:///runs/mlflow.db"


class RequestError(ValueError):
    """Request that cannot be answered; the message says what to do instead."""


def sweep_name(given: str) -> str:
    """Name the sweep that is given as such or as its YAML file.

    Raises:
        RequestError: no sweep can be called so.
    """
    try:
        return study_name(given)
    except ValueError as error:
        raise RequestError(str(error)) from error
