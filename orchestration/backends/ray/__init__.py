"""Backend for Ray: a supervisor task per stage, on a running cluster or on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from orchestration.backends.base import Backend, BackendSpec, Checkup, Finding
from orchestration.policy.profile import Profile
from orchestration.runs.provenance import package_version
from orchestration.runs.state import Store

ANSWER_SECONDS = 10.0


def connect(jobs: int | None, profile: Profile, store: Store) -> Backend:
    """Connect to the profile's cluster, or that of RAY_ADDRESS, or to Ray on this machine.

    Raises:
        ValueError: `jobs` is not positive.
    """
    from orchestration.backends.ray.backend import RayBackend

    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    return RayBackend(jobs, profile, store, _address(profile))


def _address(profile: Profile) -> str | None:
    """Find the address of a running cluster; None: Ray starts on this machine."""
    return profile.ray_address or os.environ.get("RAY_ADDRESS") or None


def examine(checkup: Checkup) -> Iterator[Finding]:
    """Look for Ray's package and, if one is named, for a cluster."""
    version = package_version("ray")
    address = checkup.profile.ray_address
    if version is None:
        yield Finding("Ray", "missing", "not installed: pip install ray", "ray")
        return
    if not address:
        yield Finding("Ray", "ok", f"{version}; no --ray-address: it is started on this host")
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS):
            yield Finding("Ray", "ok", f"{version}; {address} answers")
    except (OSError, ValueError) as error:
        text = f"{address}: {error}; start the cluster, or name no address"
        yield Finding("Ray", "missing", text, "ray")


BACKEND = BackendSpec(
    connect, examine=examine, runs_here=lambda profile: _address(profile) is None
)
