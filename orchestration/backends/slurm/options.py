"""Options of sbatch: how requests and dependencies are written for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestration.backends.base import Dependency
from orchestration.backends.slurm.commands import lines_of
from orchestration.policy import faults
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import Store

CONTROLLER_MINUTES = 60
CONTROLLER_MEMORY_GB = 4.0
_ACCOUNTING = ("partition", "account", "qos", "reservation", "wckey", "clusters")
"""Options of the profile's default request that the controller's job is given, too."""


def sbatch_options(request: Request, store: Store) -> dict[str, Any]:
    """Translate a request, by the long names of sbatch's options."""
    per_node = request.processes // request.nodes
    options: dict[str, Any] = {
        "nodes": request.nodes,
        "ntasks_per_node": per_node,
        "cpus_per_task": request.cpus,
        "time": request.time_minutes,
        "requeue": True,
    }
    if request.gpus:
        # Per node and not per task: every rank must see all GPUs of its node, and takes the one of
        # its LOCAL_RANK.
        options["gpus_per_node"] = math.ceil(request.gpus) * per_node
    if request.memory_gb is not None:
        # `--mem` is per node, in MiB as SLURM counts; rounded up, since a whole number is asked
        # for.
        options["mem"] = f"{math.ceil(request.memory_gb * per_node * 1024)}M"
    # The user's own come last: they overrule the translation.
    given = request.options("slurm")
    options |= {name.replace("-", "_"): value for name, value in given.items()}
    if bad := _bad_nodes(store):
        excluded = [str(options["exclude"])] if options.get("exclude") else []
        options["exclude"] = ",".join([*excluded, *bad])
    return {name: value for name, value in options.items() if value not in (None, False)}


def _bad_nodes(store: Store) -> list[str]:
    """List nodes of this cluster that lost workers repeatedly, unless no others would be left."""
    bad = faults.bad_hosts(store)
    if not bad:
        return []
    nodes = set(lines_of(["sinfo", "-h", "-N", "-o", "%N"]) or [])
    known = nodes.intersection(bad)
    # All nodes bad: a job that excludes every node is refused, so that excluding none is better.
    return sorted(known) if known < nodes else []


def words(options: Mapping[str, Any]) -> list[str]:
    """Write options as they are typed."""
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]


def dependency_text(after: Dependency) -> str:
    """Write a dependency as `--dependency` takes it; empty: none."""
    parts = {"aftercorr": after.aligned, "afterok": after.complete, "afterany": after.over}
    return ",".join(":".join([kind, *jobs]) for kind, jobs in parts.items() if jobs)


def controller_request(profile: Profile) -> Request:
    """Ask for one core, a little memory and no GPU, on the account of the other jobs."""
    default = profile.default
    given = default.options("slurm")
    asked = {
        "time_minutes": CONTROLLER_MINUTES,
        "memory_gb": default.memory_gb and min(default.memory_gb, CONTROLLER_MEMORY_GB),
        "slurm": {key: value for key, value in given.items() if key in _ACCOUNTING},
    }
    return Request.model_validate(asked)


def signal_delay(profile: Profile, request: Request) -> int:
    """Return the seconds before its time limit that a job is warned: at most half of its time."""
    return min(profile.signal_delay_seconds, 30 * request.time_minutes)
