"""Running of a section in a process of its own, within its time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import torch

from gigatok.runtime.devices import prepare_device
from tests.benchmarks.gpu.rows import Row, Settings

OUT_OF_TIME = "out of time"
STARTING = 300.0
"""Most seconds until a process has imported what it needs."""
Section = Callable[[Settings], Iterator[Row]]


@dataclass
class Outcome:
    """Findings of a section.

    Attributes:
        name: name of the section.
        rows: what it found before it ended, failed or was stopped.
        failure: why it did not end by itself, with a traceback where it has one.
        seconds: how long it took, the start of its process included.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    failure: str | None = None
    seconds: float = 0.0


def run_section(name: str, section: Section, settings: Settings, seconds: float) -> Outcome:
    """Run a section; what goes wrong in it, a crash of the driver included, stays in its process.

    Args:
        name: for the outcome.
        section: a function of a module.
        settings: its argument.
        seconds: time after which it is stopped; rows found by then are kept.
    """
    outcome, start = Outcome(name), time.monotonic()
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(section, settings, sending))
    process.start()
    # Only the child holds it now, so that its death ends the stream.
    sending.close()
    try:
        if receiving.poll(STARTING):
            receiving.recv()
        # Its time counts from here: imports take long on a machine that is busy.
        outcome.failure = _collect(outcome.rows, receiving, time.monotonic() + seconds)
    except EOFError:
        process.join()
        outcome.failure = f"its process ended with exit code {process.exitcode}"
    if outcome.failure == OUT_OF_TIME and process.pid is not None:
        # Its children too, such as the workers of a sweep: it leads a group of its own.
        with suppress(ProcessLookupError):  # it has not come so far as to lead one
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.join()
    outcome.seconds = time.monotonic() - start
    return outcome


def _collect(rows: list[Row], receiving: Connection, deadline: float) -> str | None:
    """Receive rows until the section ends; returns its failure, or None."""
    while receiving.poll(max(0.0, deadline - time.monotonic())):
        message = receiving.recv()
        if not isinstance(message, Row):
            failure: str | None = message
            return failure
        rows.append(message)
    return OUT_OF_TIME


def _work(section: Section, settings: Settings, sending: Connection) -> None:
    os.setpgrp()
    sending.send("started")
    # As the worker of a stage does: what is measured is what stages do.
    prepare_device(settings.device)
    if settings.quick:
        # The CPU is not what is measured, and tests run beside each other.
        torch.set_num_threads(1)
    failure = None
    try:
        for row in section(settings):
            sending.send(row)
    except BaseException:
        failure = traceback.format_exc()
    sending.send(failure)
