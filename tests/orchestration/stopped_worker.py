"""A worker that stops itself (SIGSTOP) at its Nth file operation below a stage folder."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from orchestration import heart
from orchestration.backends.workers import Slot, _work, start_server
from orchestration.runs import leases

LEASE_SECONDS = 0.3
OPERATIONS = {
    "open",
    "os.link",
    "os.listdir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "shutil.rmtree",
}


def start(stage: Path, log: Path, stop_at: int = 0) -> BaseProcess:
    """Fork a worker of a stage; with `stop_at` it stops before that file operation."""
    start_server()
    process = get_context("forkserver").Process(target=_run, args=(stage, log, stop_at))
    process.start()
    return process


def operations(log: Path) -> int:
    """File operations of a worker that ran to its end."""
    return int(log.with_suffix(".count").read_text())


def _run(stage: Path, log: Path, stop_at: int) -> None:
    leases.LEASE_SECONDS = LEASE_SECONDS
    heart.HEARTBEAT_SECONDS = 0.05  # so that stops meet heartbeats too
    count = 0
    main_process = os.getpid()

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in OPERATIONS or os.getpid() != main_process:
            return
        if isinstance(arguments[0], str | os.PathLike) and str(stage) in str(arguments[0]):
            count += 1
            if count == stop_at:
                os.kill(main_process, signal.SIGSTOP)

    sys.addaudithook(look)
    try:
        _work(str(stage), Slot(1, ""), {}, log)
    finally:
        log.with_suffix(".count").write_text(str(count))


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
