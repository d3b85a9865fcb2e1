"""Backend for SLURM: stages are jobs and elements of job arrays, which outlive the launcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration.backends.base import BackendSpec, DetachedBackend
from orchestration.backends.slurm.examination import examine
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from orchestration.yaml.source import show


def connect(jobs: int | None, profile: Profile, store: Store) -> DetachedBackend:
    """Connect to this cluster, with at most `jobs` stages of an array at a time.

    Raises:
        ValueError: `jobs` is not positive.
    """
    from orchestration.backends.slurm.backend import SlurmBackend

    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    return SlurmBackend(jobs, profile, store)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what cannot be an option of sbatch: partition, qos, account, constraint, gres, ….

    Text is passed on as it is written. True: an option without a value; False, None: not given.

    Raises:
        ValueError: a value is neither text nor true, false or null.
    """
    for name, value in options.items():
        if not (value is None or isinstance(value, str | bool)):
            raise ValueError(f"{name} {show(value)}: must be text, or true for a bare option")


BACKEND = BackendSpec(connect, detached=True, check_options=check_options, examine=examine)
