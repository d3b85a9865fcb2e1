"""This machine: one process per slot, forked from a server that has torch imported already.

The first worker waits for the imports, each further one starts in milliseconds. The server forks
before any CUDA context exists, because the workers alone touch the device.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess

from gigatok.stages import STAGES
from orchestration.backends.base import Ended, Job
from orchestration.state import StageFolder
from orchestration.worker import THREADS_VARIABLE, main

_PRELOAD = [
    "orchestration.study",
    *(f"gigatok.stages.{stage}" for stage in STAGES),
    # Optimizers import the compiler at their first step, which would cost every worker a second.
    "torch._dynamo",
]


@dataclass(frozen=True)
class Slot:
    """A share of the machine: CPU threads, and a GPU where there are GPUs.

    With more jobs than GPUs, jobs share them.
    """

    threads: int
    gpu: str
    """Value of `CUDA_VISIBLE_DEVICES`."""


def make_slots(jobs: int | None) -> list[Slot]:
    """By default one slot per GPU; without GPUs, `jobs` slots (default: one per core, at most 4).

    Raises:
        ValueError: `jobs` is not positive.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    gpus = visible_gpus()
    count = jobs or (len(gpus) or min(cores, 4))
    threads = max(1, cores // count)
    return [Slot(threads, gpus[index % len(gpus)] if gpus else "") for index in range(count)]


def visible_gpus() -> list[str]:
    """The GPUs of `CUDA_VISIBLE_DEVICES`, or all that nvidia-smi lists.

    Asking torch would create a CUDA context in the launcher.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return [str(index) for index in range(count)]


class LocalBackend:
    """Workers as child processes on this machine."""

    def __init__(self, jobs: int | None = None) -> None:
        self._free = make_slots(jobs)
        self.slots = len(self._free)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        self._running: dict[int, tuple[BaseProcess, Slot]] = {}

    def warm_up(self) -> None:
        """Start the server, which imports torch while the launcher goes on."""
        _ensure_running()

    def free_slots(self) -> int:
        """How many jobs may be submitted now."""
        return len(self._free)

    def submit(self, folder: StageFolder) -> Job:
        """Fork a worker from the server."""
        process = self._context.Process(target=_work, args=(str(folder.path), self._free[-1]))
        try:
            _ensure_running()
            process.start()
        except (EOFError, ConnectionError) as error:
            raise OSError(f"the server that starts workers died: {error!r}") from error
        assert process.pid is not None
        slot = self._free.pop()
        self._running[process.pid] = (process, slot)
        return Job(folder, process.pid)

    def poll(self, job: Job) -> Ended | None:
        """None while the process lives."""
        process, slot = self._running[job.handle]
        if process.is_alive():
            return None
        del self._running[job.handle]
        self._free.append(slot)
        return Ended(process.exitcode)

    def interrupt(self, job: Job) -> None:
        """SIGTERM: the worker saves a checkpoint and stops."""
        if job.handle in self._running:
            self._running[job.handle][0].terminate()

    def close(self) -> None:
        """Kill what is left."""
        for process, _ in self._running.values():
            process.kill()


def _ensure_running() -> None:
    """Start the fork server where none runs, deaf to signals that are meant for the launcher."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(stage_dir: str, slot: Slot) -> None:
    os.environ[THREADS_VARIABLE] = str(slot.threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    # A group of its own: Ctrl-C in the terminal reaches the launcher only, which then asks.
    os.setpgid(0, 0)
    sys.exit(main(stage_dir))


def connect(jobs: int | None) -> LocalBackend:
    """The backend for this machine."""
    return LocalBackend(jobs)
