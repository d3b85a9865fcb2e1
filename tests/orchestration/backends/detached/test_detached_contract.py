"""Contract of detached backends: what the queue, the journal and the controller rely on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.backends.base import Dependency, DetachedBackend, JobStatus, is_detached
from orchestration.backends.detached.situation import are_over
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.sites import (
    LONG,
    ONE,
    SECONDS,
    SITES,
    SLURM,
    Connect,
    broken,
    outcomes,
    wait_for_end,
)
from tests.orchestration.test_worker_ranks import training_stage

PLUGIN = pytest.param("workstation", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[SLURM, PLUGIN])
def site(request: pytest.FixtureRequest) -> Iterator[Connect]:
    with SITES[request.param](request) as site:
        yield site


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def backend(site: Connect, store: Store) -> Iterator[DetachedBackend]:
    backend = site(store)
    assert is_detached(backend)
    yield backend
    listed = backend.listed()
    assert listed is not None
    backend.cancel_jobs(handle for handle, status in listed.items() if status.ended is None)


def trainings(store: Store, count: int, **changes: int) -> list[StageFolder]:
    return [training_stage(store.root / f"stage-{index}", **changes) for index in range(count)]


def wait(over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not over():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def status(backend: DetachedBackend, handle: str) -> JobStatus:
    listed = backend.listed()
    assert listed is not None
    return listed[handle]


def test_elements_wait_for_their_own_parents_and_keep_to_the_width(
    backend: DetachedBackend, store: Store
) -> None:
    folders = trainings(store, 4)
    parents, children = folders[:2], folders[2:]
    first = backend.submit_array(parents, ONE, name="first-array", after=Dependency())
    array = first[0].handle.partition("_")[0]
    assert [job.handle for job in first] == [f"{array}_0", f"{array}_1"]
    after = Dependency(aligned=(array,))
    second = backend.submit_array(children, ONE, name="second", after=after, parallelism=1)
    wait(lambda: status(backend, second[0].handle).reason is None)
    assert status(backend, second[0].handle).ended is None
    assert [wait_for_end(backend, job).exit_code for job in second] == [0, 0]
    attempts = [folder.attempts()[0] for folder in folders]
    ends = [attempt.ended or float("inf") for attempt in attempts]
    assert ends[0] <= attempts[2].started
    assert ends[1] <= attempts[3].started
    assert ends[2] <= attempts[3].started or ends[3] <= attempts[2].started


def test_what_waits_for_a_failure_is_cancelled_and_never_runs(
    backend: DetachedBackend, store: Store
) -> None:
    folder, behind, last = broken(store.root / "broken"), *trainings(store, 2)
    failing = backend.submit(folder, ONE)
    after = Dependency(complete=(failing.handle,))
    (child,) = backend.submit_array([behind], ONE, name="child", after=after)
    after = Dependency(over=(child.handle,))
    (other,) = backend.submit_array([last], ONE, name="other", after=after)
    assert wait_for_end(backend, child).reason == "cancelled"
    assert wait_for_end(backend, other).exit_code == 0
    assert behind.attempts() == []
    ended = backend.statuses([failing])[failing.handle].ended
    assert ended is not None
    assert ended.exit_code != 0
    assert folder.failure() is not None


def test_waiting_jobs_are_cancelled_alone_and_running_ones_save_their_work(
    backend: DetachedBackend, store: Store
) -> None:
    runs, waits = trainings(store, 2, **LONG)
    running, waiting = backend.submit_array(
        [runs, waits], ONE, name="two", after=Dependency(), parallelism=1
    )
    array = running.handle.partition("_")[0]
    wait(lambda: (lease := runs.lease()) is not None and lease.progress.get("done", 0) > 3)
    backend.cancel_jobs([array], waiting_only=True)
    assert wait_for_end(backend, waiting).reason == "cancelled"
    assert status(backend, running.handle).ended is None
    assert not are_over(backend, [array])
    backend.cancel_jobs([array])
    wait_for_end(backend, running)
    wait(lambda: are_over(backend, [array]))
    assert outcomes(runs) == ["interrupted"]
    assert runs.checkpoint_step() > 0
    assert waits.attempts() == []


def test_jobs_are_found_by_name_and_are_whole(backend: DetachedBackend, store: Store) -> None:
    jobs = backend.submit_array(trainings(store, 2), ONE, name="sought", after=Dependency())
    array = jobs[0].handle.partition("_")[0]
    assert backend.find("sought") == array
    assert backend.find("nobody") is None
    assert backend.is_whole("sought", [job.handle for job in jobs])
    script = next((store.job_files(backend.name) / "sought").glob("*.sh"))
    (snapshot,) = (store.root / "snapshots").iterdir()
    assert snapshot.name in script.read_text()


def test_a_controller_starts_when_what_it_follows_is_over(
    backend: DetachedBackend, store: Store
) -> None:
    (folder,) = trainings(store, 1)
    mark = store.root / "mark"
    script = f"import pathlib; pathlib.Path({str(mark)!r}).write_text('here')"
    command = [sys.executable, "-c", script]
    controller = backend.submit_controller(command, "looks-after", 600)
    assert backend.find("looks-after") == controller
    job = backend.submit(folder, ONE)
    backend.start_after(controller, [job.handle])
    assert not mark.exists()
    wait_for_end(backend, job)
    wait(mark.exists)
    assert folder.is_complete()
    assert backend.own_job() is None
