"""Backend for this machine: a place per GPU, or per share of the cores, and stages on them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from orchestration.backends.base import BackendSpec, Capabilities, Infeasible, Job
from orchestration.backends.places import Places
from orchestration.backends.workers import (
    Slot,
    Team,
    rank_environments,
    start_server,
    start_workers,
)
from orchestration.policy.ended import Ended
from orchestration.policy.profile import Profile, Request
from orchestration.runs.state import StageFolder, Store
from orchestration.worker import EXIT_INTERRUPTED

MOST_PER_DEVICE = 8
"""Workers that may share a core or a GPU: with more, each holds memory and waits for others."""


def find_places(jobs: int | None, at_most: int | None = None) -> Places:
    """Share this machine out: a place per GPU; without GPUs one per core, at most 4.

    Args:
        jobs: stages at a time that the user asks for; with more than GPUs, stages share them.
            None: one per place.
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
    # Every GPU is a place, however few stages there are: one stage may take several.
    names = [gpus[index % len(gpus)] if gpus else "" for index in range(max(count, len(gpus)))]
    return Places(cores, tuple(names), count)


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


@dataclass(eq=False)
class LocalStage:
    """Stage on this machine; without a team it waits for places, or was cancelled meanwhile."""

    folder: StageFolder
    processes: int
    team: Team | None = None
    places: list[int] = field(default_factory=list)


class LocalBackend:
    """Workers as child processes on this machine, one per process of a stage."""

    capabilities = Capabilities(detached=False, time_limits=False)

    def __init__(self, jobs: int | None = None, at_most: int | None = None) -> None:
        self._places = find_places(jobs, at_most)
        self.slots = self._places.jobs
        self._free = list(range(len(self._places.gpus)))
        self._running: set[LocalStage] = set()
        self._waiting: LocalStage | None = None

    def warm_up(self) -> None:
        """Start the server, which imports torch while the launcher goes on."""
        start_server()

    def free_slots(self) -> int:
        """Count the jobs that may be submitted now."""
        # Nobody passes a stage that waits for several GPUs: narrow ones could keep it waiting for
        # ever.
        if self._waiting is not None:
            return 0
        return min(self._places.jobs - len(self._running), len(self._free))

    def check(self, request: Request) -> None:
        """Refuse what this machine does not have; time and memory are not limited here.

        Raises:
            Infeasible: more nodes, GPUs or processes than there can be.
        """
        if request.nodes > 1:
            raise Infeasible(f"nodes {request.nodes}: the local backend has one")
        processes, gpus = request.processes, len(set(filter(None, self._places.gpus)))
        if request.gpus * processes > gpus:
            wanted = f"{processes} processes with gpus {request.gpus:g}"
            raise Infeasible(f"{wanted}: this machine has {gpus}; ask for less")
        if gpus and processes > 1:
            own = f"processes {processes}: each needs a GPU of its own"
            if processes > gpus:
                raise Infeasible(f"{own}, and this machine has {gpus}")
            if self.slots > gpus:
                raise Infeasible(
                    f"{own}, and --jobs {self.slots} lets stages share the {gpus} GPUs; ask for "
                    f"at most {gpus} jobs"
                )
        most = MOST_PER_DEVICE * self._places.cores
        if processes > most:
            raise Infeasible(f"processes {processes}: this machine runs at most {most}")

    def submit(self, folder: StageFolder, request: Request) -> Job:
        """Fork the stage's workers from the server, now or when enough places are free."""
        assert self._waiting is None, "there was a free slot"
        stage = LocalStage(folder, request.processes)
        if not self._start(stage):
            self._waiting = stage
        return Job(folder, stage)

    def _start(self, stage: LocalStage) -> bool:
        width = self._places.width(stage.processes)
        if len(self._free) < width:
            return False
        # The first ones, which lie together: neighbours are often linked with each other.
        places = sorted(self._free)[:width]
        gpus = ",".join(filter(None, (self._places.gpus[place] for place in places)))
        slot = Slot(self._places.threads(stage.processes), gpus)
        stage.team = start_workers(stage.folder, slot, rank_environments(stage.processes))
        # Taken only once the workers run: places would be lost if the fork server failed.
        stage.places = places
        self._free = [place for place in self._free if place not in places]
        self._running.add(stage)
        return True

    def poll(self, job: Job) -> Ended | None:
        """Return the end of a job; None while any of its processes lives, or it waits for GPUs."""
        stage: LocalStage = job.handle
        if stage is self._waiting:
            if self._start(stage):
                self._waiting = None
            return None
        if stage.team is None:
            return Ended(EXIT_INTERRUPTED, "preempted")  # before it started
        if stage.team.running():
            return None
        # Places are free only when every process has ended: a second stage on a GPU that a late
        # rank still holds would run out of memory.
        self._running.remove(stage)
        self._free += stage.places
        return Ended(stage.team.exit_code, host=socket.gethostname())

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Return once a worker has ended, or after so many seconds."""
        sentinels: list[int] = []
        for job in jobs:
            if (team := job.handle.team) is None:
                continue
            # Of workers that live: the sentinel of one that has ended is ready for ever.
            alive = team.running()
            if not alive:
                return  # ended since it was polled
            sentinels += [worker.sentinel for worker in alive]
        if sentinels:
            wait(sentinels, seconds)
        else:
            time.sleep(seconds)  # `wait` for nothing returns at once

    def cancel(self, job: Job) -> None:
        """Send SIGTERM: the workers save a checkpoint and stop."""
        stage: LocalStage = job.handle
        if stage is self._waiting:
            self._waiting = None
        elif stage.team is not None:
            stage.team.terminate()

    def logs(self, job: Job) -> list[Path]:
        """List nothing: everything is in the attempts' own logs."""
        return []

    def close(self) -> None:
        """Kill what is left."""
        self._waiting = None
        for stage in self._running:
            if stage.team is not None:
                stage.team.kill()


def connect(jobs: int | None, profile: Profile, store: Store) -> LocalBackend:
    """Make the backend for this machine, with at most `jobs` stages at a time.

    Raises:
        ValueError: `jobs` is not positive, or more than this machine can run.
    """
    return LocalBackend(jobs, profile.max_parallel)


BACKEND = BackendSpec(
    connect,
    runs_here=lambda profile: True,
    places=lambda jobs, profile: find_places(jobs, profile.max_parallel),
)
