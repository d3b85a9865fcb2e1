"""What every backend does with a stage, whatever becomes of it: one suite for all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestration.backends import BACKENDS
from orchestration.backends.base import Backend, Infeasible
from orchestration.backends.local import LocalBackend
from orchestration.policy import faults
from orchestration.policy.profile import Profile, Request
from orchestration.runs.stage_records import Kind
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.sites import (
    LONG,
    ONE,
    SECONDS,
    SITES,
    SLURM,
    WORKSTATION,
    Connect,
    broken,
    outcomes,
    wait_for_end,
)
from tests.orchestration.test_worker_ranks import losses, training_stage

pytestmark = pytest.mark.heavy
NOT_ALLOCATABLE = 10**15
"""Entries of a codebook: more bytes than there are addresses."""


@pytest.fixture(scope="module", params=["local", "ray", SLURM, WORKSTATION])
def site(request: pytest.FixtureRequest) -> Iterator[Connect]:
    with SITES[request.param](request) as site:
        yield site


def test_every_backend_is_held_to_the_contract() -> None:
    assert BACKENDS.keys() == SITES.keys() - {"workstation"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A folder whose name a careless shell would trip over."""
    root = tmp_path / 'it\'s a "$HOME" of `runs`'
    root.mkdir()
    return Store(root)


@pytest.fixture
def backend(site: Connect, store: Store) -> Iterator[Backend]:
    backend = site(store)
    yield backend
    backend.close()


def run(backend: Backend, folder: StageFolder, request: Request = ONE) -> Kind | None:
    """Run a stage as the platform does, until it is complete or given up; why it was given up."""
    while True:
        ended = wait_for_end(backend, backend.submit(folder, request))
        if folder.is_complete():
            return None
        # A supervisor on a cluster may have applied the policies already.
        failure = folder.failure() if backend.capabilities.detached else None
        failure = failure or faults.after_end(folder, ended, Profile())
        if failure is not None:
            return failure.kind


def wait_for_step(folder: StageFolder, step: int) -> int:
    """Until a worker that lives is there; returns its process."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        lease = folder.lease()
        if lease is not None and lease.is_alive() and lease.progress.get("done", 0) >= step:
            return lease.pid
        time.sleep(0.05)
    raise AssertionError(f"step {step} of {folder.path} was not reached")


def weights(folder: StageFolder) -> bytes:
    return (folder.out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the long stage leaves when nothing happens to it."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    backend = LocalBackend(2)
    folder = training_stage(store.root, **LONG)
    assert run(backend, folder) is None
    return weights(folder)


def test_a_stage_completes_and_its_output_is_in_its_log(backend: Backend, store: Store) -> None:
    folder = training_stage(store.root)
    job = backend.submit(folder, ONE)
    ended = wait_for_end(backend, job)
    assert (ended.exit_code, ended.reason) == (0, None)
    assert outcomes(folder) == ["complete"]
    assert [log.name for log in folder.logs()] == ["attempt-001.log"]
    assert all(log.exists() for log in backend.logs(job))
    again = wait_for_end(backend, backend.submit(folder, ONE))
    assert again.exit_code == 0
    assert len(folder.attempts()) == 1


def test_an_exception_is_told_and_not_repeated(backend: Backend, store: Store) -> None:
    folder = broken(store.root)
    assert run(backend, folder) == "exception"
    failure = folder.failure()
    assert failure is not None
    assert "extract_codes" in failure.message
    assert outcomes(folder) == ["failed"]
    assert "extract_codes" in folder.logs()[0].read_text()


def test_running_out_of_memory_shrinks_the_micro_batch(backend: Backend, store: Store) -> None:
    folder = training_stage(store.root, codebook_size=NOT_ALLOCATABLE)
    assert run(backend, folder) == "out_of_memory"
    attempts = folder.attempts()
    assert [attempt.micro_batch for attempt in attempts] == [None, 4, 2, 1]
    failure = folder.failure()
    assert failure is not None
    assert "memory" in failure.message


@pytest.mark.slow
def test_a_killed_worker_goes_on(backend: Backend, store: Store, undisturbed: bytes) -> None:
    folder = training_stage(store.root, **LONG)
    job = backend.submit(folder, ONE)
    os.kill(wait_for_step(folder, 60), signal.SIGKILL)
    ended = wait_for_end(backend, job)
    if not folder.is_complete():  # by a supervisor on a cluster, in the same job
        assert ended.exit_code == -signal.SIGKILL
        assert faults.kind_of(folder, ended) == "killed"
        assert run(backend, folder) is None
    assert outcomes(folder) == [None, "complete"]
    assert folder.attempts()[1].first_step >= 50
    assert weights(folder) == undisturbed


@pytest.mark.slow
def test_a_preempted_stage_goes_on(backend: Backend, store: Store, undisturbed: bytes) -> None:
    folder = training_stage(store.root, **LONG)
    job = backend.submit(folder, ONE)
    os.kill(wait_for_step(folder, 60), signal.SIGTERM)
    ended = wait_for_end(backend, job)
    if not folder.is_complete():
        assert faults.kind_of(folder, ended) == "preempted"
        assert run(backend, folder) is None
    assert outcomes(folder) == ["interrupted", "complete"]
    assert folder.attempts()[1].first_step >= 60
    assert weights(folder) == undisturbed


def test_a_cancelled_stage_saves_its_work_and_ends(backend: Backend, store: Store) -> None:
    folder = training_stage(store.root, **LONG)
    job = backend.submit(folder, ONE)
    pid = wait_for_step(folder, 20)
    backend.cancel(job)
    backend.cancel(job)
    wait_for_end(backend, job)
    assert outcomes(folder) == ["interrupted"]
    assert folder.checkpoint_step() >= 20
    assert not psutil.pid_exists(pid)
    backend.cancel(job)


@pytest.mark.slow
def test_two_processes_make_one_stage(backend: Backend, store: Store) -> None:
    alone, together = (training_stage(store.root / name) for name in ("alone", "together"))
    assert run(backend, alone) is None
    assert run(backend, together, Request(processes=2)) is None
    assert outcomes(together) == ["complete"]
    names = sorted(path.name for path in (together.path / "logs").iterdir())
    assert names == ["attempt-001.log", "rank-001-attempt-001.log"]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)


def test_what_cannot_be_had_is_refused_at_once(backend: Backend) -> None:
    backend.check(ONE)
    with pytest.raises(Infeasible, match="1000"):
        backend.check(Request(nodes=1000, processes=1000))
