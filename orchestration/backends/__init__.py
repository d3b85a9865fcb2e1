"""Where stages run: a dict from the value of `--backend` to the module that does it."""

from __future__ import annotations

import importlib

from orchestration.backends.base import Backend
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store

BACKENDS: dict[str, str] = {
    "local": "orchestration.backends.local",
    "ray": "orchestration.backends.ray",
    "slurm": "orchestration.backends.slurm",
}


def connect(name: str, jobs: int | None, profile: Profile, store: Store) -> Backend:
    """The backend of a name, with at most `jobs` stages at a time.

    Raises:
        ValueError: unknown name, or `jobs` does not suit the backend.
    """
    if name not in BACKENDS:
        raise ValueError(f"--backend {name}: not one of {', '.join(BACKENDS)}")
    backend: Backend = importlib.import_module(BACKENDS[name]).connect(jobs, profile, store)
    return backend
