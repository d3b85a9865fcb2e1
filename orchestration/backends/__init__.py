"""Registry of backends: a dict from the value of `--backend` to the module that describes it."""

from __future__ import annotations

import importlib

from gigatok.plugins import Registry, registry
from orchestration.backends.base import Backend, BackendSpec, DetachedBackend, is_detached
from orchestration.policy.profile import CheckOptions, Profile
from orchestration.runs.state import Store

BACKENDS: Registry[str] = registry("backend", contract="orchestration.backends.contract")
"""Attached and detached ones. The module's `BACKEND` is a `BackendSpec`; it is imported lazily."""


def register(name: str, module: str) -> None:
    """Add a backend.

    Args:
        name: value of `--backend`.
        module: its `BACKEND` is a `BackendSpec`.

    Raises:
        ValueError: another backend has the name.
    """
    BACKENDS.add(name, module)


for _name in ("local", "ray", "slurm"):
    register(_name, f"orchestration.backends.{_name}")


def find_backend(name: str) -> BackendSpec:
    """Look a backend up.

    Raises:
        ValueError: unknown name.
    """
    if name not in BACKENDS:
        raise ValueError(f"--backend {name}: not one of {', '.join(BACKENDS)}")
    # By its name, so that planning imports neither Ray nor submitit.
    spec: BackendSpec = importlib.import_module(BACKENDS[name]).BACKEND
    return spec


def connect(name: str, jobs: int | None, profile: Profile, store: Store) -> Backend:
    """Connect to the backend of a name, with at most `jobs` stages at a time.

    Raises:
        ValueError: unknown name, or `jobs` does not suit the backend.
    """
    return find_backend(name).connect(jobs, profile, store)


def connect_detached(
    name: str, store: Store, profile: Profile | None = None, jobs: int | None = None
) -> DetachedBackend:
    """Connect to a scheduler that has jobs of this runs directory.

    Raises:
        ValueError: unknown name, or the backend has no jobs that outlive their launcher.
    """
    # `status` and `cancel` come without a profile: they ask about jobs, and what jobs request
    # plays no part in that.
    backend = connect(name, jobs, profile or Profile(), store)
    if not is_detached(backend):
        raise ValueError(f"--backend {name}: its jobs end with their launcher")
    return backend


def profile_options() -> dict[str, CheckOptions]:
    """Collect the keys of profiles that belong to backends, with what checks their values."""
    # Every registered backend counts, not the chosen one: a profile serves them all.
    checks = {name: find_backend(name).check_options for name in BACKENDS}
    return {name: check for name, check in checks.items() if check is not None}
