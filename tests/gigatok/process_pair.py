"""Two real processes in one group, for the tests of what several processes do together."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from gigatok.runtime.context import Ranks

WORLD = 2
SECONDS = 120


class ProcessPair:
    """Processes that joined a gloo group once and then run what they are sent."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        port = free_port()
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(WORLD):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, port, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call `function(ranks, *arguments)` in both at once; their results, rank 0's first."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(SECONDS), f"rank {rank} does not answer; so far: {answers}"
            answers.append(pipe.recv())
        errors = [answer for failed, answer in answers if failed]
        assert not errors, "\n".join(errors)
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End both."""
        for process in self._processes:
            process.kill()
            process.join()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _serve(rank: int, port: int, pipe: Connection) -> None:
    os.environ.update(environment(rank, port))
    import torch

    from gigatok.runtime.distributed import process_group

    torch.set_num_threads(1)
    ranks = Ranks.from_environment()
    with process_group(ranks):
        while True:
            function, arguments = pipe.recv()
            try:
                pipe.send((False, function(ranks, *arguments)))
            except Exception:
                pipe.send((True, f"rank {rank}: {traceback.format_exc()}"))
