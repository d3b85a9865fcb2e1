"""The runner's rules, on a backend whose workers write stage folders as real ones do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from orchestration.backends.base import Capabilities, Job, NoAnswer, QueueFull
from orchestration.execution.progress import Progress, stage_spec, survey
from orchestration.launching.report import outcome
from orchestration.launching.runner import Runner
from orchestration.plan.graph import make_plan
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import ATTEMPTS_WITHOUT_PROGRESS, Profile, Request
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done, Failure, Kind, Tries
from orchestration.runs.state import StageFolder, State, Store
from orchestration.study.resuming import leave_all_but, with_inputs
from orchestration.sweep.definition import expand, load_sweep

Work = Callable[[StageFolder], int]


def complete(folder: StageFolder, **metrics: float) -> int:
    holder = acquire(folder)
    assert holder is not None
    rest = {"protocol": {}, "artifacts": {}, "finished": 1.0, "seconds": 1.0, "attempt": 1}
    holder.complete(Done(metrics=metrics, **rest))
    return 0


def fail(folder: StageFolder) -> int:
    holder = acquire(folder)
    assert holder is not None
    attempt = holder.lease.attempt
    record = Attempt(number=attempt, host="here", pid=1, started=0.0, outcome="failed")
    folder.write_attempt(record)
    error = RuntimeError(f"cannot read [/data/images] of {folder.name}")
    folder.write_failure(faults.from_exception(error, attempt))
    holder.release()
    return 1


def stumble(folder: StageFolder) -> int:
    """Fail in the same place as all others, with a message of its own."""
    holder = acquire(folder)
    assert holder is not None
    try:
        raise ValueError(f"shapes of {folder.name} do not fit")
    except ValueError as error:
        folder.write_failure(faults.from_exception(error, holder.lease.attempt))
    holder.release()
    return 1


def die_silently(folder: StageFolder) -> int:
    return -9


class Recorded:
    """A backend that does the work of a stage at once, in this process, and records it."""

    capabilities = Capabilities(detached=False, time_limits=False)

    def __init__(self, work: dict[str, Work], slots: int = 2) -> None:
        self.submitted: list[str] = []
        self._work = work
        self._slots = slots
        self._ended: dict[str, int] = {}

    def warm_up(self) -> None:
        pass

    def free_slots(self) -> int:
        return self._slots - len(self._ended)

    def check(self, request: Request) -> None:
        pass

    def submit(self, folder: StageFolder, request: Request) -> Job:
        stage = folder.spec().stage
        self.submitted.append(stage)
        self._ended[folder.name] = self._work.get(stage, complete)(folder)
        return Job(folder, folder.name)

    def poll(self, job: Job) -> Ended | None:
        return Ended(self._ended.pop(job.handle))

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        time.sleep(seconds)

    def cancel(self, job: Job) -> None:
        pass

    def logs(self, job: Job) -> list[Path]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.launching.runner.TICK_SECONDS", 0.001)
    monkeypatch.setattr("orchestration.launching.runner.FOREIGN_SECONDS", 0.001)


def surveyed(store: Store, *overrides: str) -> Progress:
    sweep = load_sweep("decoder_scaling", "smoke", overrides)
    return survey(make_plan(sweep, expand(sweep)), store)


def run(store: Store, work: dict[str, Work], *overrides: str) -> tuple[Progress, Recorded]:
    backend = Recorded(work)
    progress = Runner(surveyed(store, *overrides), store, backend, Profile()).run(ignore)
    return progress, backend


def ignore(keys: Iterable[str]) -> None:
    pass


def states(progress: Progress) -> dict[str, set[State]]:
    found: dict[str, set[State]] = {}
    for key, stage in progress.plan.stages.items():
        found.setdefault(stage.stage, set()).add(progress.states[key])
    return found


def test_every_stage_is_submitted_once_after_its_inputs(tmp_path: Path) -> None:
    progress, backend = run(Store(tmp_path), {})
    assert progress.finished
    assert len(backend.submitted) == len(progress.plan.stages) == len(progress.ran) == 20
    first = backend.submitted.index
    assert first("train_tokenizer") < first("extract_codes") < first("train_generator")
    again, second = run(Store(tmp_path), {})
    assert second.submitted == []
    assert len(again.reused) == 20


def test_a_failure_stops_what_is_behind_it_and_nothing_else(tmp_path: Path) -> None:
    progress, _ = run(Store(tmp_path), {"extract_codes": fail})
    found = states(progress)
    assert found["extract_codes"] == {"FAILED"}
    assert found["train_generator"] == found["linear_probe"] == {"UPSTREAM_FAILED"}
    assert found["evaluate_generation"] == {"UPSTREAM_FAILED"}
    assert found["evaluate_reconstruction"] == {"COMPLETE"}
    assert len(progress.failures) == 3


def test_three_identical_exceptions_hold_the_sweep(tmp_path: Path) -> None:
    rates = "tokenizer.lr=1e-3"
    progress, backend = run(Store(tmp_path), {"train_tokenizer": stumble}, rates)
    assert progress.held is not None
    assert "resume SWEEP --failed" in progress.held
    assert backend.submitted.count("train_tokenizer") == 3
    assert progress.count("FAILED") == 3
    assert progress.count("RUNNING") == 0
    patient = Profile(hold_after=100)
    again = surveyed(Store(tmp_path), rates)
    Runner(again, Store(tmp_path), Recorded({"train_tokenizer": stumble}), patient).run(ignore)
    assert again.held is None
    assert again.finished


def test_cancelled_stages_are_not_started_and_a_new_launch_forgets_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    progress = surveyed(store, "tokenizer.decoder=S")
    runner = Runner(progress, store, Recorded({}), Profile())
    key = next(k for k, s in progress.plan.stages.items() if s.stage == "train_generator")
    progress = runner.run(lambda keys: progress.folders[key].cancel("me"))
    assert progress.failures[key].kind == "cancelled"
    assert progress.states[key] == "FAILED"
    assert "UPSTREAM_FAILED" in progress.states.values()
    assert outcome(progress) == "interrupted"
    again, _ = run(store, {}, "tokenizer.decoder=S")
    assert again.count("COMPLETE") == 8


def test_stages_that_are_left_alone_stay_as_they_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    progress = surveyed(store, "tokenizer.decoder=S")
    wanted = {k for k, s in progress.plan.stages.items() if s.stage.startswith("extract")}
    leave_all_but(progress, with_inputs(progress.plan, wanted))
    backend = Recorded({})
    Runner(progress, store, backend, Profile()).run(ignore)
    assert "train_tokenizer" in backend.submitted
    assert "train_generator" not in backend.submitted
    assert progress.finished
    assert progress.count("WAITING") == 8 - len(backend.submitted)


def test_relaunching_tries_what_failed_again(tmp_path: Path) -> None:
    run(Store(tmp_path), {"extract_codes": fail})
    progress, backend = run(Store(tmp_path), {})
    assert progress.count("COMPLETE") == 20
    assert backend.submitted.count("train_tokenizer") == 0
    assert backend.submitted.count("extract_codes") == 3


def test_a_stage_that_gets_nowhere_is_given_up_whatever_its_records_say(tmp_path: Path) -> None:
    one = ("tokenizer.decoder=S",)
    progress, backend = run(Store(tmp_path), {"train_tokenizer": die_silently}, *one)
    assert backend.submitted.count("train_tokenizer") == ATTEMPTS_WITHOUT_PROGRESS["killed"]
    (failure,) = progress.failures.values()
    assert failure.kind == "killed"
    assert "signal 9" in failure.message


def test_a_stage_that_gets_further_each_time_is_not_given_up(tmp_path: Path) -> None:
    steps = iter(range(100, 700, 100))

    def die_further(folder: StageFolder) -> int:
        step = next(steps, None)
        if step is None:
            return complete(folder)
        (folder.work(1).checkpoints / f"step-{step:09d}").mkdir(parents=True)
        return -9

    progress, _ = run(Store(tmp_path), {"train_tokenizer": die_further}, "tokenizer.decoder=S")
    assert progress.count("COMPLETE") == 8


def test_an_old_failure_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, {"train_tokenizer": fail}, "tokenizer.decoder=S")
    progress, _ = run(store, {"train_tokenizer": die_silently}, "tokenizer.decoder=S")
    (failure,) = progress.failures.values()
    assert failure.kind == "killed"


def test_a_stage_that_runs_elsewhere_is_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    progress = surveyed(store, "tokenizer.decoder=S")
    backend = Recorded({})
    runner = Runner(progress, store, backend, Profile())
    planned = next(s for s in progress.plan.stages.values() if s.stage == "train_tokenizer")
    folder = store.create(stage_spec(planned, progress))
    holder = acquire(folder)
    assert holder is not None
    started = time.monotonic()

    def finish_later(keys: Iterable[str]) -> None:
        if time.monotonic() - started > 0.2 and folder.lease() is not None:
            done = Done(
                metrics={}, protocol={}, artifacts={}, finished=1.0, seconds=1.0, attempt=1
            )
            holder.complete(done)

    runner.run(finish_later)
    assert "train_tokenizer" not in backend.submitted
    assert progress.count("COMPLETE") == 8
    assert progress.done_elsewhere == {planned.key}


def test_a_failure_elsewhere_counts_when_nobody_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the stage may go on with a smaller micro-batch a moment later."""
    store = Store(tmp_path)
    progress = surveyed(store, "tokenizer.decoder=S")
    runner = Runner(progress, store, Recorded({}), Profile())
    planned = next(s for s in progress.plan.stages.values() if s.stage == "train_tokenizer")
    folder = store.create(stage_spec(planned, progress))
    holder = acquire(folder)
    assert holder is not None
    moments = iter(["start", "run", "fail", "seen", "again", "done"])

    def owner(keys: Iterable[str]) -> None:
        match next(moments, None):
            case "fail":
                folder.write_failure(faults.from_exception(MemoryError(), 1))
                holder.release()
            case "again":
                assert progress.states[planned.key] == "RUNNING", "not given up"
                folder.clear_failure()
                complete(folder)

    runner.run(owner)
    assert progress.count("COMPLETE") == 8
    assert not progress.failures
    monkeypatch.setattr("orchestration.launching.runner.FINAL_SECONDS", 0.0)
    store = Store(tmp_path / "final")
    progress = surveyed(store, "tokenizer.decoder=S")
    folder = store.create(stage_spec(planned, progress))
    holder = acquire(folder)
    assert holder is not None
    moments = iter(["start", "run", "fail"])
    Runner(progress, store, Recorded({}), Profile()).run(owner)
    assert progress.failures[planned.key].kind == "out_of_memory"


def test_a_launch_after_a_cancel_goes_on_when_the_worker_elsewhere_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine that was restarted nobody sees at once that its workers are gone."""
    monkeypatch.setattr("orchestration.runs.leases.LEASE_SECONDS", 1.0)
    monkeypatch.setattr("orchestration.runs.leases.this_machine", lambda: "before the restart")
    store = Store(tmp_path)
    progress = surveyed(store, "tokenizer.decoder=S")
    planned = next(s for s in progress.plan.stages.values() if s.stage == "train_tokenizer")
    folder = store.create(stage_spec(planned, progress))
    assert acquire(folder) is not None
    folder.cancel("me")
    monkeypatch.setattr("orchestration.runs.leases.this_machine", lambda: "after it")
    progress, _ = run(store, {}, "tokenizer.decoder=S")
    assert progress.count("COMPLETE") == 8
    assert folder.cancelled_by() is None


@pytest.mark.parametrize("busy", [QueueFull("MaxSubmitJob"), NoAnswer("sbatch: timed out")])
def test_a_backend_that_takes_nothing_now_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: Exception
) -> None:
    monkeypatch.setattr("orchestration.launching.runner.BUSY_SECONDS", 0.01)
    backend = Recorded({})
    take, refusals = backend.submit, iter([None, busy, busy])

    def submit(folder: StageFolder, request: Request) -> Job:
        if (why := next(refusals, None)) is not None:
            raise why
        return take(folder, request)

    monkeypatch.setattr(backend, "submit", submit)
    progress = Runner(surveyed(Store(tmp_path)), Store(tmp_path), backend, Profile()).run(ignore)
    assert progress.count("COMPLETE") == len(backend.submitted) == 20


def test_a_job_that_nobody_can_ask_about_leaves_the_others_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Recorded({})
    asked: list[str] = []

    def poll(job: Job) -> Ended | None:
        asked.append(job.handle)
        if len(asked) == 1:
            raise OSError("the node does not start workers")
        return None if len(asked) < 5 else Ended(0)

    monkeypatch.setattr(backend, "poll", poll)
    with pytest.raises(OSError, match="does not start"):
        Runner(surveyed(Store(tmp_path)), Store(tmp_path), backend, Profile()).run(ignore)
    assert len(set(asked[1:])) == 1, "the other one is waited for"
    assert asked[0] not in asked[1:]


def test_a_stage_under_another_readable_name_is_the_same_stage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, {}, "tokenizer.decoder=B")
    by_numbers = "tokenizer.decoder={width: 48, layers: 2, heads: 2}"
    progress = surveyed(store, by_numbers)
    assert len(progress.reused) == 8


def test_interrupting_ends_the_run_and_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    runner = Runner(surveyed(store), store, Recorded({}), Profile())
    ticks = iter(range(1000))
    progress = runner.run(lambda keys: runner.interrupt() if next(ticks) == 2 else None)
    assert progress.interrupted
    assert 0 < progress.count("COMPLETE") < 20
    assert progress.count("RUNNING") == 0


def test_tries_count_ends_in_a_row_without_a_newer_checkpoint() -> None:
    tries = Tries()
    counts = []
    ends: list[tuple[Kind, int]] = [("killed", 0), ("preempted", 0), ("killed", 0), ("killed", 9)]
    for kind, step in ends:
        tries = tries.record(kind, step)
        counts.append(tries.counts)
    both: dict[Kind, int] = {"killed": 2, "preempted": 1}
    assert counts == [{"killed": 1}, {"killed": 1, "preempted": 1}, both, {"killed": 1}]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (ValueError("no"), "exception"),
        (type("NonFiniteLoss", (RuntimeError,), {})("nan"), "non_finite"),
    ],
)
def test_kinds_of_exceptions(error: Exception, kind: str) -> None:
    failure: Failure = faults.from_exception(error, 2)
    assert failure.kind == kind
    assert failure.attempt == 2
