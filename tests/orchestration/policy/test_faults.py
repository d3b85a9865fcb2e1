"""Each kind of failure and what follows, with real workers where a process is involved."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gigatok.config import SplitConfig
from gigatok.stages.train_tokenizer.spec import TrainTokenizerConfig
from orchestration.costs import ceilings
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Failure, Kind
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.test_worker_ranks import (
    ROOT,
    SECONDS,
    run_alone,
    stage,
    training_stage,
    wait_for_step,
)

PROFILE = Profile()


def failure_of(kind: Kind, attempt: int = 1, text: str = "") -> Failure:
    return Failure(kind=kind, message=text or kind, traceback=None, attempt=attempt, time=1.0)


def attempted(folder: StageFolder, device: str = "GPU A", micro_batch: int | None = None) -> None:
    """Leave the record of one attempt more, as a worker does."""
    number = len(folder.attempts()) + 1
    folder.write_attempt(
        Attempt(
            number=number,
            host="n1",
            pid=1,
            started=0.0,
            micro_batch=micro_batch,
            provenance={"device": device},
        )
    )


def start_alone(folder: StageFolder, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "orchestration.worker", str(folder.path)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


def raised(message: str) -> Failure:
    try:
        raise ValueError(message)
    except ValueError as error:
        return faults.from_exception(error, 1)


# Out of memory


def test_memory_that_runs_out_halves_the_micro_batch_until_it_fits(tmp_path: Path) -> None:
    folder = training_stage(tmp_path)
    sizes = []
    for _ in range(3):
        attempted(folder, micro_batch=folder.micro_batch())
        folder.write_failure(failure_of("out_of_memory"))
        assert faults.after_end(folder, Ended(1), PROFILE) is None
        assert folder.failure() is None
        sizes.append(folder.micro_batch())
    assert sizes == [4, 2, 1]
    attempted(folder, micro_batch=1)
    folder.write_failure(failure_of("out_of_memory"))
    failure = faults.after_end(folder, Ended(1), PROFILE)
    assert failure is not None
    assert "the micro-batch is a single sample already" in failure.message
    assert folder.spec().key == "0" * 16


def test_the_first_half_is_half_of_a_process_s_share(tmp_path: Path) -> None:
    profile = Profile(stages={"train_tokenizer": {"processes": 2}})
    folder = training_stage(tmp_path)
    folder.write_failure(failure_of("out_of_memory"))
    assert faults.after_end(folder, Ended(1), profile) is None
    assert folder.micro_batch() == 2  # of 8 samples each process has 4


def test_a_learnt_ceiling_holds_for_the_model_on_that_device_only(tmp_path: Path) -> None:
    folder = training_stage(tmp_path)
    attempted(folder)
    folder.write_failure(failure_of("out_of_memory"))
    assert faults.after_end(folder, Ended(1), PROFILE) is None
    seeds = {**folder.spec().config, "seed": 1}
    other = Store(tmp_path).create(
        folder.spec().model_copy(update={"key": "1" * 16, "config": seeds})
    )
    assert ceilings.ceiling(other, "GPU A") == 4
    assert ceilings.ceiling(other, "GPU B") is None
    tokenizer = {**seeds["tokenizer"], "num_latent_tokens": 8}
    larger = {**seeds, "tokenizer": tokenizer}
    third = Store(tmp_path).create(
        folder.spec().model_copy(update={"key": "2" * 16, "config": larger})
    )
    assert ceilings.ceiling(third, "GPU A") is None


def test_a_limit_of_the_request_teaches_nothing_about_the_device(tmp_path: Path) -> None:
    folder = training_stage(tmp_path)
    attempted(folder)
    assert faults.after_end(folder, Ended(-9, "out_of_memory"), PROFILE) is None
    assert folder.micro_batch() == 4
    assert ceilings.ceiling(folder, "GPU A") is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (RuntimeError("could not create a primitive"), "out_of_memory"),
        (RuntimeError("could not create a memory object"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out_of_memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out_of_memory"),
        (RuntimeError("could not create a primitive descriptor for a conv"), "exception"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "exception"),
        (ValueError("could not create a primitive"), "exception"),
    ],
)
def test_memory_that_runs_out_is_known_by_type_or_message(error: Exception, kind: Kind) -> None:
    assert faults.from_exception(error, 1).kind == kind


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"entropy_weight": 0.1}, "entropy_weight > 0 does not go with micro_batch"),
        ({"discriminator": "patchgan"}, "discriminator patchgan does not go with micro_batch"),
    ],
)
def test_a_loss_over_the_whole_batch_fails_and_says_so(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    folder = training_stage(tmp_path, **changes)
    folder.write_failure(failure_of("out_of_memory", text="OutOfMemoryError: 3 GiB"))
    failure = faults.after_end(folder, Ended(1), PROFILE)
    assert failure is not None
    assert failure.message.startswith("OutOfMemoryError: 3 GiB")
    assert reason in failure.message
    assert "ask for more memory" in failure.message
    assert folder.micro_batch() is None


@pytest.mark.slow
def test_a_worker_that_exhausts_its_memory_goes_on_with_less_at_a_time(tmp_path: Path) -> None:
    """A batch of 256 pixel images under a real limit of the address space."""
    folder = large_stage(tmp_path / "a")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))

    code = start_alone(folder, preexec_fn=limit).wait(timeout=SECONDS)
    assert code == 1
    failure = folder.failure()
    assert failure is not None
    assert failure.kind == "out_of_memory", failure.message
    assert faults.after_end(folder, Ended(code), PROFILE) is None
    used = folder.micro_batch()
    assert used == 1024
    device = folder.attempts()[0].provenance["device"]
    sibling = Store(tmp_path / "a").create(folder.spec().model_copy(update={"key": "1" * 16}))
    assert ceilings.ceiling(sibling, device) == used
    worker = start_alone(sibling)
    deadline = time.monotonic() + SECONDS
    while not sibling.attempts() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sibling.attempts()[0].micro_batch == used
    worker.kill()
    worker.wait()


def large_stage(root: Path) -> StageFolder:
    small = TrainTokenizerConfig.model_validate(training_stage(root / "s").spec().config)
    tokenizer = small.tokenizer.model_copy(update={"batch_size": 2048})
    split = SplitConfig(name="digits", split="train", image_size=256, images=32)
    config = small.model_copy(update={"train": split, "tokenizer": tokenizer})
    return stage(root, "train_tokenizer", config.model_dump(mode="json"))


# Non-finite losses


@pytest.mark.slow
@pytest.mark.heavy
def test_a_loss_that_is_not_finite_goes_back_to_the_checkpoint_once(tmp_path: Path) -> None:
    tame = training_stage(tmp_path / "x", steps=40, log_every=1, checkpoint_every=1)
    config = tame.spec().config
    diverging = {**config, "tokenizer": {**config["tokenizer"], "lr": 1e30}}
    folder = stage(tmp_path, "train_tokenizer", diverging)
    assert run_alone(folder) == 1
    checkpoint = folder.checkpoint_step()
    assert faults.after_end(folder, Ended(1), PROFILE) is None
    assert run_alone(folder) == 1
    failure = faults.after_end(folder, Ended(1), PROFILE)
    assert failure is not None
    assert failure.kind == "non_finite"
    assert f"at step {checkpoint + 1} (batch {checkpoint} of seed 0" in failure.message
    assert "The same again from" in failure.message
    assert [attempt.first_step for attempt in folder.attempts()] == [0, checkpoint]


# Ends from outside


@pytest.mark.slow
@pytest.mark.heavy
def test_a_killed_worker_goes_on_from_its_checkpoint_and_a_stopped_one_too(tmp_path: Path) -> None:
    folder = training_stage(tmp_path, steps=10**6, log_every=1, checkpoint_every=2)
    worker = start_alone(folder)
    wait_for_step(folder, 5, [worker])
    worker.kill()
    ended = Ended(worker.wait())
    assert faults.kind_of(folder, ended) == "killed"
    assert faults.after_end(folder, ended, PROFILE) is None
    reached = folder.checkpoint_step()
    worker = start_alone(folder)
    wait_for_step(folder, reached + 2, [worker], attempt=2)
    worker.send_signal(signal.SIGTERM)
    ended = Ended(worker.wait(timeout=SECONDS))
    assert faults.kind_of(folder, ended) == "preempted"
    assert faults.after_end(folder, ended, PROFILE) is None
    assert folder.attempts()[1].first_step == reached


@pytest.mark.parametrize(
    ("kind", "limit"), [("preempted", 20), ("node_lost", 5), ("timed_out", 3), ("killed", 3)]
)
def test_attempts_without_progress_are_limited_by_kind(
    tmp_path: Path, kind: Kind, limit: int
) -> None:
    folder = training_stage(tmp_path)
    ends = [faults.after_end(folder, Ended(None, kind), PROFILE) for _ in range(limit)]
    assert ends[:-1] == [None] * (limit - 1)
    last = ends[-1]
    assert last is not None
    assert last.kind == kind
    assert f"{limit} times in a row without getting further" in last.message
    lenient = Profile(policies={kind: limit + 1})
    folder.clear_tries()
    folder.clear_failure()
    assert all(faults.after_end(folder, Ended(None, kind), lenient) is None for _ in range(limit))


def test_a_host_that_lost_two_workers_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = training_stage(tmp_path)
    ends = [
        Ended(None, "node_lost", "bad"),
        Ended(-9, None, "bad"),
        Ended(-9, None, "once"),
        Ended(1, None, "innocent"),
        Ended(1, None, "innocent"),
        Ended(None, "preempted", "busy"),
        Ended(None, "preempted", "busy"),
    ]
    assert faults.bad_hosts(store) == []
    for ended in ends:
        faults.after_end(folder, ended, PROFILE)
        folder.clear_failure()
    assert faults.bad_hosts(store) == ["bad"]
    old = [json.loads(line) for line in store.lost_hosts.read_text().splitlines()]
    aged = ({**loss, "time": loss["time"] - 25 * 3600} for loss in old)
    store.lost_hosts.write_text("".join(json.dumps(loss) + "\n" for loss in aged))
    assert faults.bad_hosts(store) == []


# Cancelling


@pytest.mark.heavy
def test_a_cancelled_worker_saves_a_checkpoint_and_nobody_starts_it_again(tmp_path: Path) -> None:
    folder = training_stage(tmp_path, steps=10**6, log_every=1, checkpoint_every=10**6)
    worker = start_alone(folder)
    wait_for_step(folder, 3, [worker])
    folder.cancel("me on here")
    ended = Ended(worker.wait(timeout=SECONDS))
    assert ended.exit_code == 130
    assert folder.checkpoint_step() >= 3
    failure = faults.after_end(folder, ended, PROFILE)
    assert failure is not None
    assert failure.kind == "cancelled"
    assert "me on here" in failure.message
    assert run_alone(folder) == 130
    assert len(folder.attempts()) == 1
    folder.clear_tries()
    assert folder.cancelled_by() is None


def test_a_stop_that_was_wanted_is_no_preemption(tmp_path: Path) -> None:
    folder = training_stage(tmp_path)
    folder.cancel("me")
    failure = faults.after_end(folder, Ended(-15, "preempted"), PROFILE)
    assert failure is not None
    assert failure.kind == "cancelled"


# Holding a sweep


def test_identical_exceptions_hold_whatever_their_messages_name() -> None:
    failures = [raised(f"shape ({n}, 8)") for n in range(3)]
    assert faults.hold(failures[:2], 3) is None
    text = faults.hold(failures, 3)
    assert text is not None
    assert "3 stages failed with the same exception: ValueError: shape (2, 8)" in text
    assert "resume SWEEP --failed" in text
    assert faults.hold(failures, 4) is None


def test_different_exceptions_and_other_kinds_do_not_hold() -> None:
    try:
        raise KeyError("a")
    except KeyError as error:
        other = faults.from_exception(error, 1)
    failures = [raised("a"), raised("b"), other, *[failure_of("non_finite")] * 5]
    assert faults.hold(failures, 3) is None


def test_failures_on_disk_hold_if_they_are_of_this_launch(tmp_path: Path) -> None:
    folders = []
    for number in range(3):
        spec = training_stage(tmp_path / "x").spec()
        folder = Store(tmp_path).create(spec.model_copy(update={"key": f"{number:016}"}))
        folder.write_failure(raised(str(number)))
        folders.append(folder)
    assert faults.hold_on_disk(folders, 3, since=0.0) is not None
    assert faults.hold_on_disk(folders, 3, since=time.time() + 1) is None
    assert acquire(folders[0]) is not None  # a new attempt forgets the old one's failure
    assert faults.hold_on_disk(folders, 3, since=0.0) is None
