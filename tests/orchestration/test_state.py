"""The stage folder: done, leases, and who may take one over."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestration import files, state
from orchestration.state import Attempt, Done, LeaseLost, Spec, StageFolder, Store, acquire

DONE = Done(
    metrics={"psnr": 20.0}, protocol={}, artifacts={}, finished=1.0, seconds=1.0, attempt=1
)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    spec = Spec(
        stage="linear_probe", version=1, key="0" * 16, readable="S 'B'", config={}, inputs={}
    )
    return Store(tmp_path / "runs with space").create(spec)


def rewrite_lease(folder: StageFolder, **update: object) -> None:
    lease = folder.lease()
    assert lease is not None
    text = lease.model_copy(update=update).model_dump_json()
    (folder.path / "lease.json").write_text(text)


def test_waiting_running_complete(folder: StageFolder) -> None:
    assert folder.state() == "WAITING"
    holder = acquire(folder)
    assert holder is not None
    assert folder.state() == "RUNNING"
    holder.complete(DONE)
    assert folder.state() == "COMPLETE"
    assert folder.done() == DONE
    assert acquire(folder) is None


def test_a_living_holder_keeps_the_lease(folder: StageFolder) -> None:
    assert acquire(folder) is not None
    assert acquire(folder) is None


def test_lease_of_a_dead_process_is_taken_over_and_the_old_holder_may_not_write(
    folder: StageFolder,
) -> None:
    old = acquire(folder)
    assert old is not None
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    rewrite_lease(folder, pid=process.pid)
    assert folder.state() == "WAITING"
    new = acquire(folder)
    assert new is not None
    with pytest.raises(LeaseLost, match="run by somebody else"):
        old.renew({})
    with pytest.raises(LeaseLost):
        old.complete(DONE)
    assert folder.done() is None
    new.complete(DONE)


def test_a_reused_process_id_is_not_the_holder(folder: StageFolder) -> None:
    assert acquire(folder) is not None
    rewrite_lease(folder, pid=1, heartbeat=time.time() - 60)
    assert folder.state() == "WAITING"


@pytest.mark.parametrize(("age", "expected"), [(1.0, "RUNNING"), (3600.0, "WAITING")])
def test_on_another_host_only_a_silent_heartbeat_is_death(
    folder: StageFolder, age: float, expected: str
) -> None:
    assert acquire(folder) is not None
    rewrite_lease(folder, host="elsewhere", pid=1, heartbeat=time.time() - age)
    assert folder.state() == expected


def test_failure_shows_until_the_next_attempt(folder: StageFolder) -> None:
    holder = acquire(folder)
    assert holder is not None
    failure = state.Failure(kind="exception", message="no", traceback=None, attempt=1, time=0.0)
    folder.write_failure(failure)
    holder.release()
    assert folder.state() == "FAILED"
    assert acquire(folder) is not None
    assert folder.failure() is None


def test_many_threads_one_lease(folder: StageFolder) -> None:
    holders: list[object] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait()
        holders.append(acquire(folder))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(holder is not None for holder in holders) == 1


def test_attempt_numbers_grow(folder: StageFolder) -> None:
    folder.write_attempt(Attempt(number=4, host="h", pid=1, started=0.0))
    holder = acquire(folder)
    assert holder is not None
    assert holder.lease.attempt == 5


def test_index_finds_folders_by_key_whatever_they_are_called(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spec = Spec(stage="extract_codes", version=1, key="ab12", readable="S-B", config={}, inputs={})
    folder = store.create(spec)
    assert store.index("extract_codes") == {"ab12": folder}
    assert store.index("linear_probe") == {}


def test_a_new_launch_may_run_a_stage_in_another_way_until_it_is_complete(
    folder: StageFolder,
) -> None:
    store = Store(folder.path.parents[2])
    first = folder.spec()
    other = first.model_copy(update={"config": {"micro_batch": 4}})
    assert store.create(other) == folder
    assert folder.spec() == other
    holder = acquire(folder)
    assert holder is not None
    holder.complete(DONE)
    assert store.create(first) == folder
    assert folder.spec() == other


def test_write_atomic_leaves_no_temporary_file(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "a", "1")
    files.write_atomic(tmp_path / "a", "2")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "2")]
