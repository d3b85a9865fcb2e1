"""Worker processes on this machine, forked from a server that has torch imported already.

The first worker waits for the imports, each further one starts in milliseconds. The server forks
before any CUDA context exists, because the workers alone touch the device.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from pathlib import Path

from gigatok.runtime.context import MEETING_VARIABLE
from gigatok.startup import for_children, tolerate_output
from orchestration.backends.sockets import short_folder, temporary_files_in
from orchestration.runs.state import StageFolder
from orchestration.worker import THREADS_VARIABLE, main, redirect_output

PARTNER_SECONDS = 60.0
"""How long the other processes of a stage may go on after one of them failed."""
_PRELOAD = ["orchestration.backends.preloaded"]
_BELOW = len("/pymp-01234567/listener-01234567")
"""Bytes that `multiprocessing` adds to the temporary folder for its sockets."""


@dataclass(frozen=True)
class Slot:
    """Share of the machine that one stage gets.

    Attributes:
        threads: CPU threads of each process.
        gpu: value of `CUDA_VISIBLE_DEVICES`, the same in all processes; each takes the GPU of its
            local rank.
    """

    threads: int
    gpu: str


class Team:
    """Workers that run one stage together on this machine: they end together."""

    def __init__(self, workers: Sequence[BaseProcess]) -> None:
        self._workers = tuple(workers)
        self._failed = 0.0
        self._code: int | None = None

    def running(self) -> list[BaseProcess]:
        """List the workers that live; kills those that outlive a failed one by too long."""
        # Before the codes: whoever ends in between has a code, and is looked at once more.
        alive = [worker for worker in self._workers if worker.is_alive()]
        codes = [worker.exitcode for worker in self._workers]
        if self._code is None and any(codes):
            # The first failure is the cause, the others follow from it. Of several at once, a
            # death by a signal, which is negative.
            self._code, self._failed = min(filter(None, codes)), time.monotonic()
        # A broken connection ends the others by itself, but not those that still wait for the dead
        # one to come, or for a GPU. They have time because a rank that stops on request ends with
        # a code as well, while rank 0 still flushes what all have saved.
        if self._code is not None and time.monotonic() - self._failed > PARTNER_SECONDS:
            for worker in alive:
                worker.kill()
        return alive

    @property
    def exit_code(self) -> int:
        """Return the exit code of the worker that failed first, once all have ended; else 0."""
        return self._code or 0

    def terminate(self) -> None:
        """Ask all to save a checkpoint and stop; a rank that just starts may miss it."""
        for worker in self._workers:
            worker.terminate()

    def kill(self) -> None:
        """Kill all."""
        for worker in self._workers:
            worker.kill()


def start_server() -> None:
    """Start the fork server where none runs, deaf to signals that are meant for its parent.

    Raises:
        ValueError: sockets can lie nowhere.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
    # The server inherits ignored signals. A Ctrl-C goes to the whole process group of the
    # terminal, and without the server no stage could be started again.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        _sockets_folder()  # for the sockets of this process and of its workers
        with _child_variables():
            ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _child_variables() -> Iterator[None]:
    """Start Python with our code and nothing of the working folder, also from a notebook.

    The server is started by `python -c`, which looks into that folder for every module first.
    """
    ours = for_children(str(Path(__file__).resolve().parents[2]))
    before = {name: os.environ[name] for name in ours if name in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _sockets_folder() -> str:
    """Return the temporary folder of this process; made once, it is removed when that ends."""
    with temporary_files_in(short_folder(_BELOW)):
        return get_temp_dir()


def start_workers(
    folder: StageFolder,
    slot: Slot,
    environments: Sequence[dict[str, str]],
    output: Path | None = None,
) -> Team:
    """Fork a stage's workers from the server.

    Args:
        folder: the stage.
        slot: what they share.
        environments: of each process; see `rank_environments`.
        output: where they print before they have an attempt's log; None: where this process does.

    Raises:
        OSError: the server died.
    """
    context = multiprocessing.get_context("forkserver")
    workers = tuple(
        context.Process(target=_work, args=(str(folder.path), slot, environment, output))
        for environment in environments
    )
    try:
        start_server()
        with _without_main():
            for worker in workers:
                worker.start()
    except (EOFError, ConnectionError) as error:
        raise OSError(f"the server that starts workers died: {error!r}") from error
    return Team(workers)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide this process's main module from workers that are started meanwhile.

    Each would run the file of the launcher's command again, as it is by then: code from after a
    commit under the state of before it, and an edit with a typo would end all later stages.
    """
    main = sys.modules["__main__"]
    names = ("__spec__", "__file__")
    before: dict[str, object] = {n: vars(main).pop(n) for n in names if n in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(before)


def rank_environments(
    processes: int, nodes: int = 1, node: int = 0, meeting: tuple[str, int] | None = None
) -> list[dict[str, str]]:
    """List the variables by which the processes of a stage on one node find each other.

    They are torchrun's; on a single node a file stands for address and port. A single process
    needs none.

    Args:
        processes: over all nodes.
        nodes: how many there are.
        node: which one this is.
        meeting: address and port where the first process listens; None: all are on this node.
    """
    if processes == 1:
        return [{}]
    here = processes // nodes
    if meeting is None:
        # A file and no port: another program could take a free port before rank 0 listens there.
        place = {MEETING_VARIABLE: f"{_sockets_folder()}/meeting-{uuid.uuid4().hex}"}
    else:
        place = {"MASTER_ADDR": meeting[0], "MASTER_PORT": str(meeting[1])}
    # Ranks count on from node to node, as torchrun does: node 0 has 0 … here-1, node 1 the next
    # ones.
    return [
        {
            **place,
            "WORLD_SIZE": str(processes),
            "RANK": str(node * here + local),
            "LOCAL_RANK": str(local),
        }
        for local in range(here)
    ]


def free_port(address: str = "") -> int:
    """Find a port that nobody listens on at an address of this machine."""
    # Port 0 has the kernel choose among the free ports. Somebody else may take the port before the
    # worker listens there.
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _work(stage_dir: str, slot: Slot, environment: dict[str, str], output: Path | None) -> None:
    if output is not None:
        redirect_output(output)
    tolerate_output()
    os.environ.update(environment)
    os.environ[THREADS_VARIABLE] = str(slot.threads)
    # Set before the worker touches CUDA: the variable is read once, when the first context is
    # made.
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    # A group of its own: Ctrl-C in the terminal reaches the launcher only, which then asks.
    os.setpgid(0, 0)
    sys.exit(main(stage_dir))


def memory_kills() -> int:
    """Count the processes of this control group that the kernel killed for want of memory.

    0 where there is no such group or it does not count.
    """
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _number, _controllers, path = line.split(":", 2)
        for file in (
            # cgroup v2 first, then v1: the kernel says nothing to the process itself, which just
            # gets SIGKILL.
            Path(f"/sys/fs/cgroup{path}/memory.events"),
            Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"),
        ):
            if file.exists() and (
                found := re.search(r"^oom_kill (\d+)", file.read_text(encoding="utf-8"), re.M)
            ):
                return int(found[1])
    return 0
