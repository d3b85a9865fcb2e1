"""Jobs on a real SLURM cluster: what happens to them, and that the stage gets through it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gigatok.config import ProbeConfig
from gigatok.stages import LinearProbeConfig
from orchestration.backends.base import Ended, Job
from orchestration.backends.slurm import QueueFull, SlurmBackend
from orchestration.backends.slurm_queue import ask_sacct, ask_squeue
from orchestration.profile import Profile, Request
from orchestration.state import StageFolder, Store
from tests.orchestration.slurm_cluster import (
    Cluster,
    job_state,
    preempting,
    run,
    slurm_cluster,
    wait_until,
)
from tests.orchestration.test_worker_ranks import stage as any_stage
from tests.orchestration.test_worker_ranks import training_stage

pytestmark = pytest.mark.cluster
SCAVENGE = Request(slurm={"partition": "scavenge"})
LONG = {"steps": 600, "log_every": 1, "checkpoint_every": 50}
"""A stage of many seconds."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def backend(cluster: Cluster, tmp_path: Path) -> SlurmBackend:
    root = tmp_path / 'it\'s a "folder"'
    root.mkdir()
    return SlurmBackend(None, Profile(signal_delay_seconds=20), Store(root))


def stage(backend: SlurmBackend, name: str = "s", **changes: Any) -> StageFolder:
    return training_stage(backend._store.root / name, **changes)


def wait_for_step(folder: StageFolder, step: int) -> None:
    def reached() -> bool:
        lease = folder.lease()
        return lease is not None and lease.progress.get("done", 0) >= step

    wait_until(reached, f"step {step} of {folder.path}")


def wait_for_end(backend: SlurmBackend, job: Job) -> Ended:
    wait_until(lambda: backend.poll(job) is not None, f"the end of job {job.handle}", 240)
    ended = backend.poll(job)
    assert ended is not None
    return ended


def outcomes(folder: StageFolder) -> list[str | None]:
    return [attempt.outcome for attempt in folder.attempts()]


def supervisors(job: Job) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and process.environ()["SLURM_JOB_ID"] == job.handle:
            found.append(process)
    return found


def test_an_array_and_what_depends_on_it(backend: SlurmBackend) -> None:
    first = [stage(backend, name) for name in ("a", "b")]
    second = [stage(backend, name) for name in ("c", "d")]
    parents = backend.submit_array(first, Request(), name="first")
    array = parents[0].handle.partition("_")[0]
    assert [job.handle for job in parents] == [f"{array}_0", f"{array}_1"]
    children = backend.submit_array(
        second, Request(), name="second", dependency=f"aftercorr:{array}", parallelism=1
    )
    assert backend.poll(children[0]) is None
    assert wait_for_end(backend, children[0]) == wait_for_end(backend, children[1]) == Ended(0)
    for parent, child in zip(first, second, strict=True):
        done, attempt = parent.done(), child.attempts()[0]
        assert done is not None
        assert done.finished <= attempt.started


def test_two_processes_on_two_nodes(backend: SlurmBackend) -> None:
    job = backend.submit(stage(backend), Request(processes=2, nodes=2))
    assert wait_for_end(backend, job) == Ended(0)
    assert outcomes(job.folder) == ["complete"]
    names = sorted(log.name for log in (job.folder.path / "logs").iterdir())
    assert names == ["attempt-001.log", "rank-001-attempt-001.log"]
    assert len(backend.logs(job)) == 4


def test_an_exception_fails_the_job_and_cancels_what_waits_for_it(backend: SlurmBackend) -> None:
    config = LinearProbeConfig(probe=ProbeConfig(), seed=0).model_dump(mode="json")
    broken = any_stage(backend._store.root / "broken", "linear_probe", config)  # without inputs
    job = backend.submit(broken, Request())
    behind = backend.submit_array(
        [stage(backend, "behind")], Request(), name="behind", dependency=f"afterok:{job.handle}"
    )[0]
    ended = wait_for_end(backend, job)
    assert (ended.exit_code, ended.reason) == (1, None)
    failure = broken.failure()
    assert failure is not None
    assert failure.kind == "exception"
    assert wait_for_end(backend, behind).reason == "cancelled"
    assert behind.folder.attempts() == []


@pytest.mark.parametrize("user_signal", [True, False])
def test_a_preempted_job_goes_on_from_its_checkpoint(
    cluster: Cluster, backend: SlurmBackend, user_signal: bool
) -> None:
    cluster.configure(user_signal=user_signal)
    job = backend.submit(stage(backend, **LONG), SCAVENGE)
    wait_for_step(job.folder, 3)
    with preempting():
        assert backend.poll(job) is None
        assert outcomes(job.folder) == ["interrupted"]
        reached = job.folder.checkpoint_step()
        assert reached >= 3
        assert job.folder.tries().counts == {"preempted": 1}
    assert wait_for_end(backend, job) == Ended(0)
    assert outcomes(job.folder) == ["interrupted", "complete"]
    assert job.folder.attempts()[1].first_step == reached


def test_two_processes_are_preempted_together(backend: SlurmBackend) -> None:
    request = SCAVENGE.model_copy(update={"processes": 2, "nodes": 2})
    job = backend.submit(stage(backend, steps=600, log_every=1), request)
    wait_for_step(job.folder, 3)
    with preempting():
        assert outcomes(job.folder) == ["interrupted"]
    assert wait_for_end(backend, job) == Ended(0)
    assert outcomes(job.folder) == ["interrupted", "complete"]


def test_a_killed_worker_is_started_again_in_the_same_job(backend: SlurmBackend) -> None:
    job = backend.submit(stage(backend, **LONG), Request())
    wait_for_step(job.folder, 60)
    lease = job.folder.lease()
    assert lease is not None
    psutil.Process(lease.pid).kill()
    assert wait_for_end(backend, job) == Ended(0)
    assert outcomes(job.folder) == [None, "complete"]
    assert job.folder.attempts()[1].first_step >= 50
    assert job.folder.tries().counts == {"killed": 1}


def test_a_lost_node_is_left_and_the_stage_goes_on_elsewhere(
    cluster: Cluster, backend: SlurmBackend
) -> None:
    job = backend.submit(stage(backend, **LONG), Request())
    wait_for_step(job.folder, 60)
    node = run("squeue", "--noheader", "-o", "%N", "-j", job.handle).strip()
    cluster.power_off(node)
    try:
        assert wait_for_end(backend, job) == Ended(0)
    finally:
        cluster.power_on(node)
        cluster.wait_for_nodes()
    assert outcomes(job.folder) == [None, "complete"]
    assert job.folder.attempts()[1].first_step >= 50


def test_a_stage_that_needs_more_than_its_time_goes_on(backend: SlurmBackend) -> None:
    request = Request(time_minutes=1)
    job = backend.submit(stage(backend, steps=10**6, log_every=1), request)
    wait_until(lambda: len(job.folder.attempts()) == 2, "a second attempt", 240)
    first, second = job.folder.attempts()
    assert first.outcome == "interrupted"
    assert second.first_step > 3
    assert job.folder.tries().counts == {"timed_out": 1}
    backend.cancel(job)
    assert wait_for_end(backend, job).reason == "cancelled"


def test_a_stage_that_hangs_is_stopped_before_its_time_is_up(backend: SlurmBackend) -> None:
    job = backend.submit(stage(backend, **LONG), Request(time_minutes=1))
    wait_for_step(job.folder, 3)
    lease = job.folder.lease()
    assert lease is not None
    psutil.Process(lease.pid).send_signal(signal.SIGSTOP)
    wait_until(lambda: len(job.folder.attempts()) == 2, "a second attempt", 240)
    assert job.folder.tries().counts == {"timed_out": 1}
    assert wait_for_end(backend, job) == Ended(0)


def test_a_cancelled_job_saves_a_checkpoint_and_does_not_come_back(backend: SlurmBackend) -> None:
    job = backend.submit(stage(backend, **LONG), Request())
    wait_for_step(job.folder, 3)
    backend.cancel(job)
    backend.cancel(job)
    assert wait_for_end(backend, job).reason == "cancelled"
    backend.cancel(job)
    assert outcomes(job.folder) == ["interrupted"]
    assert job.folder.checkpoint_step() >= 3
    assert job_state(job.handle) == "CANCELLED"
    failure = job.folder.failure()
    assert failure is not None
    assert failure.kind == "cancelled"


def test_more_memory_than_asked_for(backend: SlurmBackend) -> None:
    job = backend.submit(stage(backend, "."), Request(memory_gb=0.05))
    ended = wait_for_end(backend, job)
    assert ended.reason == "out_of_memory"


def test_nothing_is_lost_while_the_accounting_database_is_down(
    cluster: Cluster, backend: SlurmBackend
) -> None:
    cluster.stop_accounting()
    try:
        job = backend.submit(stage(backend), Request())
        assert backend.poll(job) is None
        assert ask_sacct([job.handle]) == {}
        assert wait_for_end(backend, job) == Ended(0)
        job.folder.done_file.rename(job.folder.path / "DONE.aside")
        listed = ask_squeue()
        assert listed is not None
        wait_until(lambda: job_state(job.handle) == "COMPLETED", "the job's end")
        unknown = Job(stage(backend, "other"), "99999")
        assert backend.poll(unknown) is None
    finally:
        cluster.start_accounting()


def test_the_users_limit_of_jobs(cluster: Cluster, backend: SlurmBackend) -> None:
    limit = ("sacctmgr", "--immediate", "modify", "user", "root", "set")
    run(*limit, "MaxSubmitJobs=2")
    try:
        three = [stage(backend, name) for name in "abc"]
        with pytest.raises(QueueFull, match="MaxSubmitJob"):
            backend.submit_array(three, Request(), name="three")
    finally:
        run(*limit, "MaxSubmitJobs=-1")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(gpus=0.5), "whole devices"),
        (Request(nodes=9, processes=9), "node configuration is not available"),
        (Request(slurm={"partition": "gpu"}), "partition"),
        (Request(memory_gb=999), "configuration is not available"),
    ],
)
def test_what_the_cluster_cannot_give_is_refused(
    backend: SlurmBackend, request_: Request, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        backend.check(request_)
    backend.check(SCAVENGE)
