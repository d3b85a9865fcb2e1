"""Backends as the tests of their contracts meet them: each with the servers that it needs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import ray

from gigatok.config import ProbeConfig
from gigatok.stages.linear_probe.spec import LinearProbeConfig
from orchestration.backends import BACKENDS, connect
from orchestration.backends.base import Backend, Job
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.ray.ray_cluster import ray_cluster
from tests.orchestration.test_worker_ranks import stage

SECONDS = 240
ONE = Request()
LONG = {"steps": 400, "log_every": 1, "checkpoint_every": 50}
"""A stage of many seconds."""
PLUGIN = Path(__file__).parent / "detached" / "workstation_backend.py"
HOOK = f"""
import sys
# The package would take this for the moment in which `python -m` has put a folder on the path.
words, sys.argv = sys.argv, []
from orchestration.backends import BACKENDS
sys.argv = words
BACKENDS["workstation"] = {PLUGIN.stem!r}
"""
"""Run by every Python that starts with the plug-in's folder on its path."""
Connect = Callable[[Store], Backend]


@contextmanager
def on_local(request: pytest.FixtureRequest) -> Iterator[Connect]:
    yield lambda store: connect("local", 2, Profile(), store)


@contextmanager
def on_ray(request: pytest.FixtureRequest) -> Iterator[Connect]:
    with ray_cluster({"num_cpus": 2}) as cluster:
        # Once for all tests: with each connection Ray starts new processes, which import torch.
        ray.init(cluster.address, log_to_driver=False)
        profile = Profile(ray_address=cluster.address)
        yield lambda store: connect("ray", None, profile, store)


@contextmanager
def on_slurm(request: pytest.FixtureRequest) -> Iterator[Connect]:
    request.getfixturevalue("slurm_servers")
    yield lambda store: connect("slurm", None, Profile(), store)


@contextmanager
def on_workstation(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Register a backend that lies outside of the repository."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp("plugin")
    with pytest.MonkeyPatch.context() as patch:
        install_plugin(folder, patch)
        yield lambda store: connect("workstation", 2, Profile(), store)


def install_plugin(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the plug-in into a folder, and register it here and in every process started here."""
    shutil.copy(PLUGIN, folder)
    (folder / "sitecustomize.py").write_text(HOOK)
    patch.setenv("PYTHONPATH", str(folder), prepend=":")
    patch.syspath_prepend(str(folder))
    patch.delitem(sys.modules, PLUGIN.stem, raising=False)
    patch.setitem(BACKENDS, "workstation", PLUGIN.stem)


SITES: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Connect]]] = {
    "local": on_local,
    "ray": on_ray,
    "slurm": on_slurm,
    "workstation": on_workstation,
}
SLURM = pytest.param("slurm", marks=pytest.mark.cluster)
WORKSTATION = pytest.param("workstation", marks=[pytest.mark.slow, pytest.mark.exhaustive])
TWO_PROCESSES = "two processes of local"


def broken(root: Path) -> StageFolder:
    """Make a probe that lacks its inputs."""
    config = LinearProbeConfig(probe=ProbeConfig(), seed=0)
    return stage(root, "linear_probe", config.model_dump(mode="json"))


def wait_for_end(backend: Backend, job: Job) -> Ended:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended = backend.poll(job)
        if ended is not None:
            return ended
        backend.wait([job], 0.05)
    raise AssertionError(f"{job} did not end")


def outcomes(folder: StageFolder) -> list[str | None]:
    return [attempt.outcome for attempt in folder.attempts()]
