"""Stages on a real Ray cluster of several raylets: nodes that are lost, and what a launch is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from orchestration.backends.base import Infeasible, Job
from orchestration.backends.ray.backend import RayBackend
from orchestration.backends.ray.head import ClusterGone
from orchestration.policy import faults
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import StageFolder, Store
from tests.orchestration.backends.ray.ray_cluster import ray_cluster
from tests.orchestration.programs import environment
from tests.orchestration.test_kill import artifacts, folders, kill_workers
from tests.orchestration.test_worker_ranks import losses, training_stage

SECONDS = 240
LONG = {"steps": 10**6, "log_every": 1, "checkpoint_every": 20}
TWO_NODES = Request(processes=2, nodes=2)


def wait_until(met: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := met():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come")


def wait_for_end(backend: RayBackend, job: Job) -> Ended:
    ended = wait_until(lambda: backend.poll(job), f"the end of {job.folder.path}")
    assert isinstance(ended, Ended)
    return ended


def wait_for_step(folder: StageFolder, step: int) -> int:
    """Until a worker that lives is there; its process."""

    def pid() -> int | None:
        lease = folder.lease()
        there = lease is not None and lease.is_alive() and lease.progress.get("done", 0) >= step
        return lease.pid if lease is not None and there else None

    return int(wait_until(pid, f"step {step}"))


def descendants() -> set[psutil.Process]:
    """That run: the local backend's tests leave their fork server, which is no matter of Ray's."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(child)
    return found


@pytest.mark.slow
def test_a_lost_node_is_told_and_the_stage_goes_on_elsewhere(tmp_path: Path) -> None:
    before = descendants()
    with ray_cluster({"num_cpus": 0}, {"num_cpus": 1}) as cluster:
        backend = RayBackend(None, Profile(), Store(tmp_path), cluster.address)
        folder = training_stage(tmp_path, **LONG)
        job = backend.submit(folder, Request())
        pid = wait_for_step(folder, 40)
        (node,) = cluster.worker_nodes
        cluster.remove_node(node, allow_graceful=False)
        ended = wait_for_end(backend, job)
        assert (ended.exit_code, ended.reason) == (None, "node_lost")
        wait_until(lambda: not psutil.pid_exists(pid), "the end of the worker left behind")
        assert faults.after_end(folder, ended, Profile()) is None
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        job = backend.submit(folder, Request())
        wait_until(lambda: len(folder.attempts()) == 2, "the second attempt")
        assert folder.attempts()[1].first_step >= 40
        pid = wait_for_step(folder, 0)
        backend.close()
        wait_until(lambda: not psutil.pid_exists(pid), "the end of the worker")
    # The server that forks workers ends when it sees that the process above it has.
    wait_until(lambda: descendants() <= before, "the end of all that Ray started")


@pytest.mark.slow
def test_two_nodes_run_one_stage_and_one_does_not_outlive_the_other(tmp_path: Path) -> None:
    with ray_cluster({"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        backend = RayBackend(None, Profile(), Store(tmp_path), cluster.address)
        folder = training_stage(tmp_path / "two")
        ended = wait_for_end(backend, backend.submit(folder, TWO_NODES))
        assert (ended.exit_code, folder.state()) == (0, "COMPLETE")
        alone = training_stage(tmp_path / "one")
        assert wait_for_end(backend, backend.submit(alone, Request())).exit_code == 0
        assert losses(folder) == pytest.approx(losses(alone), rel=1e-4)

        long = training_stage(tmp_path / "long", **LONG)
        job = backend.submit(long, TWO_NODES)
        wait_for_step(long, 20)
        (node,) = cluster.worker_nodes
        cluster.remove_node(node, allow_graceful=False)
        ended = wait_for_end(backend, job)
        assert ended.exit_code != 0
        assert faults.after_end(long, ended, Profile()) is None
        assert long.checkpoint_step() >= 20
        # Ray tells the launcher of a lost task before it counts the node out.
        wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1, "the loss of a node")
        with pytest.raises(Infeasible, match=r"2 x \(1 CPU, 0 GPU\).* has 1 nodes: 1 CPU, 0 GPU"):
            backend.check(TWO_NODES)
        backend.close()


@pytest.mark.slow
def test_a_cluster_that_went_away_is_told_as_that_and_leaves_nothing(tmp_path: Path) -> None:
    backend = RayBackend(None, Profile(), Store(tmp_path))
    folder = training_stage(tmp_path, **LONG)
    job = backend.submit(folder, Request())
    wait_for_step(folder, 20)
    (head,) = [one for one in psutil.Process().children() if one.name() == "gcs_server"]
    head.kill()
    head.wait(SECONDS)
    with pytest.raises(ClusterGone, match="Ray, which this launch had started here, has ended"):
        wait_for_end(backend, job)
    assert backend.free_slots() == 0
    backend.cancel(job)
    wait_for_end(backend, job)
    assert folder.attempts()[0].outcome == "interrupted", "a checkpoint was saved"
    assert folder.failure() is None
    backend.close()


def test_no_cluster_at_an_address_is_said(tmp_path: Path) -> None:
    backend = RayBackend(None, Profile(), Store(tmp_path), "127.0.0.1:1")
    with pytest.raises(ValueError, match="--ray-address"):
        backend.warm_up()


def launch(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """In a session of its own, as in a terminal."""
    with (folder / "launch.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestration.launch", *arguments],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def said(folder: Path) -> str:
    return (folder / "launch.log").read_text()


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where launches keep temporary files, of which Ray's are gone with them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert list(Path(folder).glob("ray-*")) == []


@pytest.fixture
def session_of() -> Iterator[Callable[[subprocess.Popen[bytes]], list[psutil.Process]]]:
    """Everything in the session of a process; what a test leaves of it is killed."""
    sessions: list[int] = []

    def find(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        sessions.append(process.pid)
        return in_session(process.pid)

    yield find
    for session in sessions:
        for process in in_session(session):
            process.kill()


def in_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.slow
def test_a_sweep_on_ray_is_the_local_one_bit_by_bit(
    tmp_path: Path, session_of: Callable[[subprocess.Popen[bytes]], list[psutil.Process]]
) -> None:
    # Seconds of training, in which a worker is certainly met at work.
    sweep = ("decoder_scaling", "--scale", "smoke", "--set", "tokenizer.steps=100")
    one_thread = ("--jobs", str(os.cpu_count()))
    for name in ("local", "ray"):
        (tmp_path / name).mkdir()
    process = launch(tmp_path / "ray", *sweep, "--backend", "ray")

    def one_trains() -> bool:
        training = [
            f for f in folders(tmp_path / "ray") if f.path.parent.name == "train_tokenizer"
        ]
        return any(one.attempts() and one.lease() is not None for one in training)

    wait_until(one_trains, "a worker at work")
    assert kill_workers(tmp_path / "ray") > 0
    assert process.wait(SECONDS) == 0, said(tmp_path / "ray")
    wait_until(lambda: not session_of(process), "the end of all that Ray started")
    attempts = [len(folder.attempts()) for folder in folders(tmp_path / "ray")]
    assert max(attempts) > 1, "no worker was killed"
    process = launch(tmp_path / "local", *sweep, *one_thread)
    assert process.wait(SECONDS) == 0, said(tmp_path / "local")
    assert artifacts(tmp_path / "ray") == artifacts(tmp_path / "local")


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_leaves_nothing_behind(
    tmp_path: Path, session_of: Callable[[subprocess.Popen[bytes]], list[psutil.Process]]
) -> None:
    (tmp_path / "one.yaml").write_text(
        "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S, "
        "tokenizer.steps: 100000, tokenizer.checkpoint_every: 100000}\n"
        "axes: {tokenizer.semantic_weight: [0]}\nstages: [train_tokenizer]\n"
    )
    process = launch(tmp_path, "one.yaml", "--backend", "ray")
    (folder,) = wait_until(lambda: folders(tmp_path), "the stage")
    wait_for_step(folder, 50)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to Ray's servers too
    assert process.wait(SECONDS) == 130, said(tmp_path)
    assert "The same command continues" in said(tmp_path)
    assert [attempt.outcome for attempt in folder.attempts()] == ["interrupted"]
    assert folder.checkpoint_step() >= 50
    wait_until(lambda: not session_of(process), "the end of all that Ray started")


@pytest.mark.slow
def test_what_this_machine_does_not_have_is_refused_at_once(
    tmp_path: Path, session_of: Callable[[subprocess.Popen[bytes]], list[psutil.Process]]
) -> None:
    (tmp_path / "profile.yaml").write_text("stages: {train_tokenizer: {gpus: 100}}\n")
    profile = ("--profile", "profile.yaml", "--backend", "ray")
    process = launch(tmp_path, "decoder_scaling", "--scale", "smoke", *profile)
    assert process.wait(SECONDS) == 3
    assert "100 GPU" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    wait_until(lambda: not session_of(process), "the end of all that Ray started")
