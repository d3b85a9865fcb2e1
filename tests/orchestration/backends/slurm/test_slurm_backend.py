"""Jobs on a real SLURM cluster: what happens to them, and that the stage gets through it."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from gigatok.config import ProbeConfig
from gigatok.stages.linear_probe.spec import LinearProbeConfig
from orchestration.__main__ import app
from orchestration.backends.base import Dependency, Infeasible, Job, NoAnswer, QueueFull
from orchestration.backends.detached.journal import Journal
from orchestration.backends.slurm.backend import SlurmBackend
from orchestration.backends.slurm.queue import ask_sacct, ask_squeue
from orchestration.commands.upkeep.doctor import on_node
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import StageFolder, Store
from orchestration.search.controller import JournaledBackend
from tests.orchestration.backends.slurm.slurm_cluster import (
    Cluster,
    job_state,
    preempting,
    run,
    wait_until,
)
from tests.orchestration.test_worker_ranks import stage as any_stage
from tests.orchestration.test_worker_ranks import training_stage

pytestmark = pytest.mark.cluster
WIDE = {"COLUMNS": "500"}
SCAVENGE = Request(slurm={"partition": "scavenge"})
LONG = {"steps": 300, "log_every": 1, "checkpoint_every": 50}
"""A stage of many seconds."""


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
        second, Request(), name="second", after=Dependency(aligned=(array,)), parallelism=1
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
        [stage(backend, "behind")],
        Request(),
        name="behind",
        after=Dependency(complete=(job.handle,)),
    )[0]
    ended = wait_for_end(backend, job)
    assert (ended.exit_code, ended.reason) == (1, None)
    failure = broken.failure()
    assert failure is not None
    assert failure.kind == "exception"
    assert wait_for_end(backend, behind).reason == "cancelled"
    assert behind.folder.attempts() == []


def test_two_processes_are_preempted_together(backend: SlurmBackend) -> None:
    request = SCAVENGE.model_copy(update={"processes": 2, "nodes": 2})
    job = backend.submit(stage(backend, steps=600, log_every=1), request)
    wait_for_step(job.folder, 3)
    with preempting():
        assert outcomes(job.folder) == ["interrupted"]
    assert wait_for_end(backend, job) == Ended(0)
    assert outcomes(job.folder) == ["interrupted", "complete"]


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


def test_a_silent_scheduler_may_have_queued_a_stage_and_it_runs_once(
    cluster: Cluster, backend: SlurmBackend
) -> None:
    """The same call again finds out what became of the request that got no answer."""
    folder = stage(backend)
    journal = Journal(folder.store, "slurm")
    journaled = JournaledBackend(backend, journal, "sweep", "plan")
    with cluster.silent():
        with pytest.raises(NoAnswer, match=r"sbatch: .*(timed out|contact slurm controller)"):
            journaled.submit(folder, Request())
        with pytest.raises(NoAnswer):
            backend.largest_array()
        (intent,) = journal.submissions()
        assert intent.job is None, "kept, to be settled"
    job = journaled.submit(folder, Request())
    listed = run("squeue", "--me", "--noheader", "-o", "%i %T").splitlines()
    assert [line.split()[0] for line in listed] == [str(job.handle)], "it is queued once"
    assert wait_for_end(backend, job) == Ended(0)
    assert len(folder.attempts()) == 1


def test_the_doctor_looks_from_a_node(cluster: Cluster, tmp_path: Path) -> None:
    options = ["--backend", "slurm", "--runs-dir", str(tmp_path), "--tracking-uri"]
    done = CliRunner().invoke(app, ["doctor", *options, "http://127.0.0.1:1"], env=WIDE)
    assert done.exit_code == 0, done.output
    assert re.search(r"ok +node n\d: runs directory +is seen", done.output)
    assert re.search(r"ok +node n\d: clock", done.output)
    assert re.search(r"warning +node n\d: MLflow +http://127.0.0.1:1.*refused", done.output)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "profile.yaml").write_text("default: {slurm: {partition: gpu}}")
    done = CliRunner().invoke(
        app, ["doctor", *options[:-1], "--profile", str(tmp_path / "profile.yaml")], env=WIDE
    )
    assert done.exit_code == 3
    assert re.search(r"missing +a node +srun.*invalid partition specified: gpu", done.output)


def test_a_node_that_does_not_see_the_runs_directory_is_told(tmp_path: Path) -> None:
    found = list(on_node(tmp_path / "elsewhere" / "token", "http://127.0.0.1:1"))
    assert found[0].level == "missing"
    assert "is not seen there; name a --runs-dir that all nodes see" in found[0].text


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
    with pytest.raises(Infeasible, match=message):
        backend.check(request_)
    backend.check(SCAVENGE)
