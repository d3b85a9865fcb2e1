"""Where stages run: a dict from the value of `--backend` to the module that does it."""

from __future__ import annotations

import importlib

from orchestration.backends.base import Backend

BACKENDS: dict[str, str] = {"local": "orchestration.backends.local"}


def connect(name: str, jobs: int | None) -> Backend:
    """The backend of a name, with at most `jobs` stages at a time.

    Raises:
        ValueError: unknown name, or `jobs` does not suit the backend.
    """
    if name not in BACKENDS:
        raise ValueError(f"--backend {name}: not one of {', '.join(BACKENDS)}")
    backend: Backend = importlib.import_module(BACKENDS[name]).connect(jobs)
    return backend
