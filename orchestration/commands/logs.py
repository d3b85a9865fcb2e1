"""`python -m orchestration logs SWEEP [TRIAL] [STAGE]`: what stages printed, or print now."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from gigatok.text.options import RunsDir
from gigatok.text.places import DEFAULT_RUNS
from orchestration.commands.completion import stages, trials
from orchestration.commands.options import LaunchedScale, LaunchedSweep
from orchestration.exits import EXIT_INTERRUPTED
from orchestration.study.logs import LogReader, may_print, why_silent
from orchestration.study.study import Study

FOLLOW_SECONDS = 0.5


def logs(
    sweep: LaunchedSweep,
    trial: Annotated[
        str | None, typer.Argument(help="Default: what runs or failed.", autocompletion=trials)
    ] = None,
    stage: Annotated[
        str | None, typer.Argument(help="Default: all stages.", autocompletion=stages)
    ] = None,
    scale: LaunchedScale = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Until the stages have ended.")
    ] = False,
    all_attempts: Annotated[bool, typer.Option("--all", help="Not only the newest.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS,
) -> None:
    """Print what the attempts of some stages of the newest launch printed."""
    study = Study(sweep, scale, runs=runs_dir)
    launched = study.launched()
    readers = study.log_readers(trial, stage, all_attempts=all_attempts)
    printer = Printer()
    # One stage after the other first, then interleaved while following: a heading tells whose text
    # it is.
    for reader in readers.values():
        printer.print_new([reader])
        if reader.silent:
            print(f"== {reader.name} {reader.folder.name} {why_silent(study.store, reader)}")
    if not readers:
        print(f"nothing runs or has failed; name a trial: {', '.join(launched.trials)}")
    try:
        while follow and may_print(launched, launched.folders(study.store), readers):
            time.sleep(FOLLOW_SECONDS)
            printer.print_new(readers.values())
        # A stage may have printed its last lines between that look and its end.
        printer.print_new(readers.values())
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


class Printer:
    """Prints the logs of several stages; a heading says whose text follows, where that changes."""

    def __init__(self) -> None:
        self._newest: Path | None = None

    def print_new(self, readers: Iterable[LogReader]) -> None:
        """Print what was added to the logs since the last time."""
        for reader in readers:
            for file, text in reader.new():
                if file != self._newest:
                    print(f"== {reader.name} {file}")
                    self._newest = file
                sys.stdout.write(text)
        # Piped output is buffered otherwise, and `logs -f | grep` would wait.
        sys.stdout.flush()
