"""What every backend does with a stage, whatever becomes of it: one suite for all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

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
    TWO_PROCESSES,
    WORKSTATION,
    Connect,
    broken,
    outcomes,
    wait_for_end,
)
from tests.orchestration.test_worker_ranks import losses, training_stage

pytestmark = pytest.mark.heavy
TWO = Request(processes=2)
Undisturbed = Callable[[Request], bytes]
NOT_ALLOCATABLE = 10**15
"""Entries of a codebook: more bytes than there are addresses."""


@pytest.fixture(scope="module", params=["local", TWO_PROCESSES, "ray", SLURM, WORKSTATION])
def name(request: pytest.FixtureRequest) -> str:
    """The backend, or a way of it to run stages."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, name: str) -> Iterator[Connect]:
    with SITES["local" if name == TWO_PROCESSES else name](request) as site:
        yield site


@pytest.fixture
def ask(name: str) -> Request:
    """What each stage asks for."""
    return TWO if name == TWO_PROCESSES else ONE


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
    profile = Profile(default=request)
    while True:
        ended = wait_for_end(backend, backend.submit(folder, request))
        if folder.is_complete():
            return None
        # A supervisor on a cluster may have applied the policies already.
        failure = folder.failure() if backend.capabilities.detached else None
        failure = failure or faults.after_end(folder, ended, profile)
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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What the long stage leaves when nothing happens to it, in so many processes."""

    @cache
    def found(processes: int) -> bytes:
        store = Store(tmp_path_factory.mktemp("undisturbed"))
        folder = training_stage(store.root, **LONG)
        assert run(LocalBackend(2), folder, Request(processes=processes)) is None
        return weights(folder)

    return lambda request: found(request.processes)


def test_a_stage_completes_and_its_output_is_in_its_log(
    backend: Backend, store: Store, ask: Request
) -> None:
    folder = training_stage(store.root)
    job = backend.submit(folder, ask)
    ended = wait_for_end(backend, job)
    assert (ended.exit_code, ended.reason) == (0, None)
    assert outcomes(folder) == ["complete"]
    assert [log.name for log in folder.logs()] == ["attempt-001.log"]
    assert all(log.exists() for log in backend.logs(job))
    job = backend.submit(folder, ask)
    started = time.monotonic()
    if not backend.capabilities.detached:
        backend.wait([job], SECONDS)
        assert time.monotonic() - started < SECONDS, "the end of a process ends the wait"
    again = wait_for_end(backend, job)
    assert again.exit_code == 0
    assert len(folder.attempts()) == 1


def test_an_exception_is_told_and_not_repeated(
    backend: Backend, store: Store, ask: Request
) -> None:
    folder = broken(store.root)
    assert run(backend, folder, ask) == "exception"  # it lacks its inputs
    failure = folder.failure()
    assert failure is not None
    assert "extract_codes" in failure.message
    assert outcomes(folder) == ["failed"]
    assert "extract_codes" in folder.logs()[0].read_text()


def test_running_out_of_memory_shrinks_the_micro_batch(
    backend: Backend, store: Store, ask: Request
) -> None:
    folder = training_stage(store.root, codebook_size=NOT_ALLOCATABLE)
    assert run(backend, folder, ask) == "out_of_memory"
    attempts = folder.attempts()
    sizes = [None, 4, 2, 1] if ask.processes == 1 else [None, 2, 1]
    assert [attempt.micro_batch for attempt in attempts] == sizes
    failure = folder.failure()
    assert failure is not None
    assert "memory" in failure.message


@pytest.mark.slow
def test_a_killed_worker_goes_on(
    backend: Backend, store: Store, ask: Request, undisturbed: Undisturbed
) -> None:
    folder = training_stage(store.root, **LONG)
    job = backend.submit(folder, ask)
    os.kill(wait_for_step(folder, 60), signal.SIGKILL)
    ended = wait_for_end(backend, job)
    if not folder.is_complete():  # by a supervisor on a cluster, in the same job
        assert ended.exit_code == -signal.SIGKILL
        assert faults.kind_of(folder, ended) == "killed"
        assert run(backend, folder, ask) is None
    assert outcomes(folder) == [None, "complete"]
    assert folder.attempts()[1].first_step >= 50
    assert weights(folder) == undisturbed(ask)


@pytest.mark.slow
def test_a_preempted_stage_goes_on(
    backend: Backend, store: Store, ask: Request, undisturbed: Undisturbed
) -> None:
    folder = training_stage(store.root, **LONG)
    job = backend.submit(folder, ask)
    os.kill(wait_for_step(folder, 60), signal.SIGTERM)
    ended = wait_for_end(backend, job)
    if not folder.is_complete():
        assert faults.kind_of(folder, ended) == "preempted"
        assert run(backend, folder, ask) is None
    assert outcomes(folder) == ["interrupted", "complete"]
    assert folder.attempts()[1].first_step >= 60
    assert weights(folder) == undisturbed(ask)


def test_a_cancelled_stage_saves_its_work_and_ends(
    backend: Backend, store: Store, ask: Request
) -> None:
    folder = training_stage(store.root, **LONG)
    job = backend.submit(folder, ask)
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
    assert run(backend, together, TWO) is None
    assert outcomes(together) == ["complete"]
    names = sorted(path.name for path in (together.path / "logs").iterdir())
    assert names == ["attempt-001.log", "rank-001-attempt-001.log"]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    found, expected = (load_file(one.out / "model.safetensors") for one in (together, alone))
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name


def test_what_cannot_be_had_is_refused_at_once(backend: Backend, ask: Request) -> None:
    backend.check(ask)
    with pytest.raises(Infeasible, match="1000"):
        backend.check(Request(nodes=1000, processes=1000))
