"""Supervisor that Ray runs for a stage, once per node. Imported from the launch's snapshot.

It forks the workers from a server of its own, which lives as long as the process that Ray runs
supervisors in, one after the other: many small stages import torch once.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypedDict

import ray

from orchestration.backends.workers import (
    Slot,
    Team,
    free_port,
    memory_kills,
    rank_environments,
    start_workers,
)
from orchestration.runs.stage_records import Kind
from orchestration.runs.state import StageFolder

TICK_SECONDS = 0.1


class NodePart(TypedDict):
    """Part of a stage that runs on one node.

    Attributes:
        stage_dir: the stage.
        output: where workers print before they have an attempt's log.
        threads: of each process.
        processes: over all nodes.
        nodes: how many the stage runs on.
        node: which of them this is; 0 has rank 0.
    """

    stage_dir: str
    output: str
    threads: int
    processes: int
    nodes: int
    node: int


def supervise(part: NodePart, meeting: tuple[str, int] | None) -> tuple[int, Kind | None, str]:
    """Run the workers of a stage on this node until all have ended.

    Ray's `cancel` arrives as SIGINT. The first one asks the workers to save a checkpoint and stop,
    the second kills them.

    Args:
        part: what runs here.
        meeting: address and port of rank 0, where there are several nodes.

    Returns:
        Exit code of the process that failed first here, 0 if none did; why it ended if the host
        knows; and the host.
    """
    cancels: list[int] = []
    # Appending to a list is all that a handler may safely do here; `_wait` looks at it in every
    # tick.
    before = signal.signal(signal.SIGINT, lambda *_: cancels.append(1))
    try:
        kills = memory_kills()
        team = _start(part, meeting)
        _wait(team, cancels)
        _remove_if_empty(Path(part["output"]))
        # The kernel names no victim: a SIGKILL and a count that grew meanwhile are the best
        # evidence there is.
        short = team.exit_code == -signal.SIGKILL and memory_kills() > kills
        return team.exit_code, "out_of_memory" if short else None, socket.gethostname()
    finally:
        signal.signal(signal.SIGINT, before)


def meeting_point() -> tuple[str, int]:
    """Find the address of this node, and a free port there."""
    return ray.util.get_node_ip_address(), free_port()


def _start(part: NodePart, meeting: tuple[str, int] | None) -> Team:
    # Or Ray's command would be taken for the stage's.
    sys.argv = ["-m", "orchestration.worker", part["stage_dir"]]
    # Ray hides the other GPUs from the supervisor only; the workers come from a server that was
    # started before, maybe for other GPUs.
    slot = Slot(part["threads"], ",".join(map(str, ray.get_gpu_ids())))
    environments = rank_environments(part["processes"], part["nodes"], part["node"], meeting)
    output = Path(part["output"])
    output.parent.mkdir(exist_ok=True)
    return start_workers(StageFolder.at(Path(part["stage_dir"])), slot, environments, output)


def _wait(team: Team, cancels: Sequence[int]) -> None:
    while running := team.running():
        wait([worker.sentinel for worker in running], TICK_SECONDS)
        if len(cancels) > 1:
            team.kill()
        elif cancels:
            team.terminate()  # in every tick: one that just starts may miss it


def _remove_if_empty(file: Path) -> None:
    if file.exists() and file.stat().st_size == 0:
        file.unlink(missing_ok=True)
