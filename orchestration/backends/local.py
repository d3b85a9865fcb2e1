"""Backend for this machine: one process per slot."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from orchestration.backends.base import BackendSpec, Capabilities, Infeasible, Job
from orchestration.backends.workers import Slot, rank_environments, start_server, start_workers
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import StageFolder, Store

MOST_PER_DEVICE = 8
"""Stages that may share a core or a GPU: with more, each holds memory and waits for the others."""


def make_slots(jobs: int | None, at_most: int | None = None) -> list[Slot]:
    """Share this machine out: a slot per GPU; without GPUs one per core, at most 4.

    Args:
        jobs: slots that the user asks for instead; None: as above.
        at_most: of the profile, where the user asks for nothing; None: any number.

    Raises:
        ValueError: `jobs` is not positive, or more than this machine can run.
    """
    # The affinity, not the count of the machine: in a container or a job only some of its cores
    # are ours.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    gpus = visible_gpus()
    most = MOST_PER_DEVICE * (len(gpus) or cores)
    if jobs is not None and not 1 <= jobs <= most:
        here = f"{len(gpus)} GPUs" if gpus else f"{cores} cores"
        allowed = f"must be at least 1 and, on this machine of {here}, at most {most}"
        raise ValueError(f"--jobs {jobs}: {allowed}; leave it out for what suits the machine")
    usual = len(gpus) or min(cores, 4)
    count = jobs or min(usual, at_most or usual)
    # Torch would otherwise start one thread per core in every worker, and they would fight for
    # cores.
    threads = max(1, cores // count)
    return [Slot(threads, gpus[index % len(gpus)] if gpus else "") for index in range(count)]


def visible_gpus() -> list[str]:
    """List the GPUs of `CUDA_VISIBLE_DEVICES`, or all that nvidia-smi lists.

    Asking torch would create a CUDA context in the launcher.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Empty is a choice as well: the user wants no GPU, and nvidia-smi would list them all the
    # same.
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listing = subprocess.run(
        [tool, "-L"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    # With MIG, indented lines name the parts of a GPU; only whole GPUs are counted.
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return [str(index) for index in range(count)]


@dataclass(frozen=True)
class Processes:
    """Workers of a stage, rank 0 first, and the share of the machine that they take."""

    workers: tuple[BaseProcess, ...]
    slot: Slot


class LocalBackend:
    """Workers as child processes on this machine; all processes of a stage share one slot."""

    capabilities = Capabilities(detached=False, time_limits=False)

    def __init__(self, jobs: int | None = None, at_most: int | None = None) -> None:
        self._free = make_slots(jobs, at_most)
        self.slots = len(self._free)
        self._running: dict[int, Processes] = {}

    def warm_up(self) -> None:
        """Start the server, which imports torch while the launcher goes on."""
        start_server()

    def free_slots(self) -> int:
        """Count the jobs that may be submitted now."""
        return len(self._free)

    def check(self, request: Request) -> None:
        """Refuse what this machine does not have; time and memory are not limited here.

        Raises:
            Infeasible: more nodes or GPUs than there are, or several GPUs for one stage.
        """
        if request.nodes > 1:
            raise Infeasible(f"nodes {request.nodes}: the local backend has one")
        gpus = len(visible_gpus())
        if request.gpus * request.processes > gpus:
            wanted = f"{request.processes} processes with gpus {request.gpus:g}"
            raise Infeasible(f"{wanted}: this machine has {gpus}")
        if gpus and request.processes > 1:
            raise Infeasible(
                f"processes {request.processes}: the local backend gives a stage one GPU, and "
                "each process needs its own; use --backend ray"
            )

    def submit(self, folder: StageFolder, request: Request) -> Job:
        """Fork the stage's workers from the server."""
        # Taken off the list only once the workers run: a slot would be lost if the fork server
        # failed.
        slot = self._free[-1]
        workers = start_workers(folder, slot, rank_environments(request.processes))
        leader = workers[0].pid
        assert leader is not None
        self._running[leader] = Processes(workers, self._free.pop())
        return Job(folder, leader)

    def poll(self, job: Job) -> Ended | None:
        """Return the end of a job; None while any of its processes lives."""
        running = self._running[job.handle]
        if any(worker.is_alive() for worker in running.workers):
            return None
        # The slot is free only when every process has ended: a second stage on a GPU that a late
        # rank still holds would run out of memory.
        del self._running[job.handle]
        self._free.append(running.slot)
        return Ended(running.workers[0].exitcode, host=socket.gethostname())

    def cancel(self, job: Job) -> None:
        """Send SIGTERM: the worker saves a checkpoint and stops."""
        if job.handle in self._running:
            for worker in self._running[job.handle].workers:
                worker.terminate()

    def logs(self, job: Job) -> list[Path]:
        """List nothing: everything is in the attempts' own logs."""
        return []

    def close(self) -> None:
        """Kill what is left."""
        for running in self._running.values():
            for worker in running.workers:
                worker.kill()


def connect(jobs: int | None, profile: Profile, store: Store) -> LocalBackend:
    """Make the backend for this machine, with at most `jobs` stages at a time.

    Raises:
        ValueError: `jobs` is not positive, or more than this machine can run.
    """
    return LocalBackend(jobs, profile.max_parallel)


BACKEND = BackendSpec(
    connect,
    runs_here=lambda profile: True,
    slots=lambda jobs, profile: make_slots(jobs, profile.max_parallel),
)
