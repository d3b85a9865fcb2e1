"""The stage folder: done, leases, and who may take one over."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.runs import files, leases
from orchestration.runs.holder import LeaseLost, acquire, hash_outputs, reopen_damaged
from orchestration.runs.leases import Lease
from orchestration.runs.records import Record, UnreadableRecord, parse_record
from orchestration.runs.stage_records import Attempt, Done, Failure, Spec
from orchestration.runs.state import StageFolder, Store

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
    process = subprocess.Popen(["true"])
    process.wait()
    rewrite_lease(folder, pid=process.pid)
    assert folder.state() == "WAITING"
    new = acquire(folder)
    assert new is not None
    with pytest.raises(LeaseLost, match="the lease was lost"):
        old.renew({})
    with pytest.raises(LeaseLost):
        old.complete(DONE)
    assert folder.done() is None
    new.complete(DONE)


def test_a_reused_process_id_is_not_the_holder(folder: StageFolder) -> None:
    assert acquire(folder) is not None
    rewrite_lease(folder, pid=1)
    assert folder.state() == "WAITING"


@pytest.mark.parametrize("clock", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_a_worker_out_of_sight_is_judged_by_how_long_its_heart_was_seen_silent(
    folder: StageFolder, monkeypatch: pytest.MonkeyPatch, clock: float, host: str
) -> None:
    """Neither its host name nor its clock says anything: containers share one, clocks differ."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.3)
    holder = acquire(folder)
    assert holder is not None
    rewrite_lease(folder, host=host, machine="another", pid=1, heartbeat=time.time() + clock)
    for _ in range(4):
        assert folder.state() == "RUNNING"
        holder.renew({})
        time.sleep(0.1)
    deadline = time.monotonic() + 5
    while folder.state() == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert folder.state() == "WAITING"


def test_a_worker_waits_until_a_silent_predecessor_is_dead(
    folder: StageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.3)
    assert acquire(folder) is not None
    rewrite_lease(folder, machine="another", heartbeat=time.time() - 3600)
    started = time.monotonic()
    holder = acquire(folder)
    assert holder is not None
    assert holder.lease.attempt == 2
    assert time.monotonic() - started >= 0.3


def test_a_lease_that_a_power_cut_emptied_is_dead(folder: StageFolder) -> None:
    assert acquire(folder) is not None
    (folder.path / "lease.json").write_text("")
    assert folder.state() == "WAITING"
    assert acquire(folder) is not None


def test_a_stopped_lock_holder_blocks_nobody_for_ever(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with files.locked(lock), files.locked(lock, break_after=0.2):
        pass
    with files.locked(lock, break_after=0.2):
        pass


def test_failure_shows_until_the_next_attempt(folder: StageFolder) -> None:
    holder = acquire(folder)
    assert holder is not None
    failure = Failure(kind="exception", message="no", traceback=None, attempt=1, time=0.0)
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


def test_outputs_are_published_as_a_whole_and_nothing_else_is_left(folder: StageFolder) -> None:
    holder = acquire(folder)
    assert holder is not None
    (holder.work.out / "model.bin").write_bytes(b"weights")
    holder.work.checkpoints.mkdir()
    assert not folder.out.exists()
    holder.complete(DONE)
    assert [path.name for path in folder.out.iterdir()] == ["model.bin"]
    assert folder.works() == []
    assert folder.lease() is None


def test_checkpoints_are_handed_over_and_the_old_owner_cannot_touch_them(
    folder: StageFolder,
) -> None:
    old = acquire(folder)
    assert old is not None
    step = old.work.checkpoints / "step-000000003"
    step.mkdir(parents=True)
    (step / "weights").write_bytes(b"1")
    (old.work.checkpoints / "codes").write_bytes(b"22")
    still_open = (old.work.checkpoints / "codes").open("r+b")
    rewrite_lease(folder, pid=2**22 - 1)
    new = acquire(folder)
    assert new is not None
    new.inherit()
    assert folder.checkpoint_step() == 3
    with still_open:
        still_open.write(b"99")
    assert (new.work.checkpoints / "codes").read_bytes() == b"22"
    with pytest.raises(LeaseLost):
        old.renew({})
    assert folder.works() == [new.work]


def test_an_attempt_that_was_killed_before_done_did_not_complete(folder: StageFolder) -> None:
    holder = acquire(folder)
    assert holder is not None
    attempt = Attempt(number=1, host="h", pid=1, started=0.0, ended=1.0, outcome="complete")
    holder.record(attempt)
    assert folder.attempts()[0].outcome is None
    holder.complete(DONE)
    assert folder.attempts() == [attempt]


def test_outputs_behind_a_link_are_refused(folder: StageFolder, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    folder.out.symlink_to(tmp_path / "big disk")
    with pytest.raises(ValueError, match="is a symbolic link"):
        acquire(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: file.unlink(), "model.bin is missing"),
        (lambda file: file.write_bytes(b"w"), "model.bin has 1 bytes instead of 7"),
        (lambda file: file.write_bytes(b"weightz"), "its sha256 differs"),
    ],
)
def test_damaged_outputs_are_found_and_made_again(
    folder: StageFolder, harm: Callable[[Path], object], message: str
) -> None:
    for content in (b"weights", b"weights"):
        holder = acquire(folder)
        assert holder is not None
        (holder.work.out / "model.bin").write_bytes(content)
        found = hash_outputs(holder.work.out)
        artifacts = {name: size for name, (size, _) in found.items()}
        hashes = {name: digest for name, (_, digest) in found.items()}
        holder.complete(DONE.model_copy(update={"artifacts": artifacts, "hashes": hashes}))
        assert folder.damage(thorough=True) is None
        reopen_damaged(folder)
        assert folder.is_complete()
        harm(folder.out / "model.bin")
        assert message in str(folder.damage(thorough=True))
        reopen_damaged(folder)
        assert not folder.is_complete()


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


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("DONE", "finished", "NaN"),
        ("DONE", "finished", "1e300"),
        ("DONE", "seconds", "-Infinity"),
        ("DONE", "artifacts", '{"a\\u0000b": 1}'),
        ("lease.json", "pid", "-5"),
        ("lease.json", "pid", "1099511627776"),
        ("lease.json", "heartbeat", "NaN"),
        ("lease.json", "progress", '{"done": "x", "total": []}'),
    ],
)
def test_values_that_nobody_can_use_make_a_record_unreadable(
    tmp_path: Path, name: str, field: str, value: str
) -> None:
    """A date that cannot be shown, or a process that cannot be asked for, is damage."""
    done = Done(metrics={}, protocol={}, artifacts={}, finished=1.0, seconds=1.0, attempt=1)
    kind: type[Record] = Done if name == "DONE" else Lease
    good = done if name == "DONE" else Lease.mine(1)
    others = {key: json.dumps(v) for key, v in good.model_dump().items() if key != field}
    items = [*others.items(), (field, value)]
    file = tmp_path / name
    file.write_text("{" + ", ".join(f'"{key}": {text}' for key, text in items) + "}")
    with pytest.raises(UnreadableRecord, match=field):
        parse_record(file, kind)


def test_a_micro_batch_beyond_all_numbers_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "micro_batch").write_text("9" * 5000)
    assert StageFolder.at(tmp_path).micro_batch() is None
