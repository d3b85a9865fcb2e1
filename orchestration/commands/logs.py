"""`python -m orchestration logs SWEEP [TRIAL] [STAGE]`: what stages printed, or print now."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from orchestration.cluster.journal import Journal
from orchestration.commands.sweep_status import stage_states
from orchestration.exits import EXIT_INTERRUPTED, fail
from orchestration.launching.launched import LaunchedPlan, Scale, find_launch
from orchestration.runs.state import StageFolder, Store

FOLLOW_SECONDS = 0.5
PIECE_BYTES = 2**20
"""A log is printed in pieces: it may be larger than the memory."""
Folders = Mapping[str, StageFolder]


def logs(
    sweep: str,
    trial: Annotated[str | None, typer.Argument(help="Default: what runs or failed.")] = None,
    stage: Annotated[str | None, typer.Argument(help="Default: all stages.")] = None,
    scale: Scale = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Until the stages have ended.")
    ] = False,
    all_attempts: Annotated[bool, typer.Option("--all", help="Not only the newest.")] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
) -> None:
    """Print what the attempts of some stages of the newest launch printed."""
    store = Store(runs_dir)
    launched = find_launch(store, sweep, scale)
    folders = launched.folders(store)
    try:
        keys = stage_keys(launched, folders, trial, stage)
    except ValueError as error:
        fail(error)
    chosen = {folders[key]: launched.stages[key].stage for key in keys}
    readers = [Reader(folder, name, all_attempts) for folder, name in chosen.items()]
    for reader in readers:
        reader.print_new()
        if reader.silent:
            print(f"== {reader.name} {reader.folder.name} {_why_silent(store, reader)}")
    if not readers:
        print(f"nothing runs or has failed; name a trial: {', '.join(launched.trials)}")
    try:
        while follow and _go_on(launched, folders, keys):
            time.sleep(FOLLOW_SECONDS)
            for reader in readers:
                reader.print_new()
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _go_on(launched: LaunchedPlan, folders: Folders, keys: Iterable[str]) -> bool:
    """Whether any of these stages may still print something."""
    states = stage_states(launched, folders)
    return any(states[key] in ("WAITING", "RUNNING") for key in keys)


def stage_keys(
    launched: LaunchedPlan, folders: Folders, trial: str | None, stage: str | None
) -> list[str]:
    """Keys of the stages asked for; without a trial, of those that run or have failed.

    Raises:
        ValueError: no such trial or stage.
    """
    if trial is None:
        states = {key: folders[key].state() for key in launched.stages}
        return [key for key, state in states.items() if state in ("RUNNING", "FAILED")]
    if trial not in launched.trials:
        raise ValueError(f"no trial {trial!r}; trials: {', '.join(launched.trials)}")
    stages = launched.trials[trial]
    if stage is None:
        return list(stages.values())
    if stage not in stages:
        raise ValueError(f"no stage {stage!r}; stages of {trial}: {', '.join(stages)}")
    return [stages[stage]]


class Reader:
    """Prints the logs of a stage as they grow, and goes on to the next attempt's."""

    newest: Reader | None = None
    """Whose text was printed last: another's begins with a heading."""

    def __init__(self, folder: StageFolder, name: str, all_attempts: bool) -> None:
        self.folder, self.name = folder, name
        self.silent = True
        self._position = 0
        # A character may begin in one piece and end in the next.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._file: Path | None = None
        self._headed = False
        files = folder.logs()
        self._done = set() if all_attempts else set(files[:-1])

    def print_new(self) -> None:
        """Print what was added since the last time."""
        for file in self.folder.logs():
            if file in self._done:
                continue
            if file != self._file:
                if self._file is not None:
                    self._done.add(self._file)
                self._file, self._position, self._headed = file, 0, False
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._print_rest(file)

    def _print_rest(self, file: Path) -> None:
        with file.open("rb") as log:
            log.seek(self._position)
            # In parts: a log may be larger than the memory of this machine.
            while new := log.read(PIECE_BYTES):
                if not self._headed or Reader.newest is not self:
                    print(f"== {self.name} {file}")
                    Reader.newest, self._headed = self, True
                self.silent = False
                self._position += len(new)
                sys.stdout.write(self._decoder.decode(new))
        sys.stdout.flush()


def _why_silent(store: Store, reader: Reader) -> str:
    """Say what became of a stage of which there is no text."""
    state, done = reader.folder.state(), reader.folder.done()
    if state == "COMPLETE" and done is not None:
        return f"printed nothing: complete after {done.seconds:.0f} s, in attempt {done.attempt}"
    if state in ("COMPLETE", "RUNNING"):
        return f"printed nothing: {state.lower()}"
    if (failure := reader.folder.failure()) is not None:
        return f"printed nothing: {failure.message}"
    if reader.folder.logs():
        return "printed nothing: stopped, to be tried again"
    return f"has not started{_queue_log(store, reader)}"


def _queue_log(store: Store, reader: Reader) -> str:
    """Name the job that a stage waits in, if it was queued."""
    if not (store.root / "journal").is_dir():
        return ""
    job = Journal(store).jobs().get(reader.folder.name.rpartition("-")[2])
    return "" if job is None else f", it waits as job {job.handle}"
