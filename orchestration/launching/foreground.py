"""Run of a plan in the foreground: a live display, and what Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType
from typing import Protocol

from rich.console import Console

from orchestration.execution.display import Display
from orchestration.execution.progress import Progress
from orchestration.execution.results import trial_metrics
from orchestration.forecast.forecast import Meter, forecast_line, forecast_tag
from orchestration.launching import drawn
from orchestration.launching.claimed import has_news, launch_findings
from orchestration.launching.runner import Observe
from orchestration.terminal import say_event
from orchestration.tracking.shipping import Tracking

FINISH_SECONDS, INTERRUPTED_FINISH_SECONDS = 60.0, 10.0
"""How long the end of a launch waits for the tracking server."""


class Driver(Protocol):
    """Brings a plan forward, or follows it."""

    progress: Progress
    stopping: str
    """Message for the user when it is interrupted."""

    @property
    def goes_on(self) -> bool:
        """Tell whether jobs are queued or running when it has returned."""

    def interrupt(self) -> None:
        """Stop; a second call stops at once."""

    def run(self, observe: Observe) -> Progress:
        """Go on until nothing is left to do, or it is interrupted."""


def run(runner: Driver, tracking: Tracking, console: Console) -> None:
    """Run with a live display; Ctrl-C lets running stages save a checkpoint first."""
    progress = runner.progress
    say_event(console, "preparing the tracking store …", "dim")
    # Around the preparation as well: a Ctrl-C while a slow tracking server is waited for must stop
    # in order.
    with on_interrupt(runner, console):
        if not tracking.prepare():
            text = f"MLflow: {tracking.error}; everything is kept on disk"
            say_event(console, text, "yellow")
        display = Display(console, progress)
        meter = Meter(progress)

        def observe(keys: Iterable[str]) -> None:
            # An iterator would be empty after the first reader.
            keys = list(keys)
            # Tracking first: its note and the forecast of this tick are what the display then
            # shows.
            if has_news(progress, keys):
                tracking.tell(launch_findings(progress))
            tracking.notify(keys)
            display.note = tracking.note()
            forecast = meter.forecast()
            tracking.expect(forecast_tag(forecast))
            display.forecast = forecast_line(forecast)
            display.update(keys)

        try:
            runner.run(observe)
            if _has_something_to_draw(progress):
                # Its imports take as long as it takes to send the last results.
                drawn.prepare()
        finally:
            # Before anything is printed: a live table would overwrite it.
            display.close()
            # Whoever pressed Ctrl-C wants the prompt back; what is not sent waits on disk.
            patience = INTERRUPTED_FINISH_SECONDS if progress.interrupted else FINISH_SECONDS
            unsent = tracking.finish(patience, queued=runner.goes_on)
    if unsent:
        say_event(console, str(unsent), "yellow")


def _has_something_to_draw(progress: Progress) -> bool:
    """Tell whether the end of the launch will draw: there are results that no other had."""
    is_changed = bool(progress.ran or progress.done_elsewhere) and not progress.interrupted
    return is_changed and any(trial_metrics(progress).values())


class on_interrupt:
    """While active, Ctrl-C, SIGTERM or a closed terminal stop the runner; twice kills workers."""

    def __init__(self, runner: Driver, console: Console) -> None:
        self._runner = runner
        self._console = console
        self._count = 0

    def __enter__(self) -> None:
        # SIGHUP: the terminal is closed, or the connection to it is lost.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        # Nothing but a flag is set here: a handler runs between any two instructions of the
        # runner. Every signal counts, so that a closed terminal after a Ctrl-C kills the workers.
        self._runner.interrupt()
        if self._count == 1:
            say_event(self._console, self._runner.stopping, "yellow")
