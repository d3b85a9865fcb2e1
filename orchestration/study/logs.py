"""Logs of stages: what their attempts printed, or print now."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from orchestration.backends.detached.journal import Journal
from orchestration.launching.launched import LaunchedPlan
from orchestration.runs.state import StageFolder, Store
from orchestration.study.status import stage_states

PIECE_BYTES = 2**20
"""A log is read in pieces: it may be larger than the memory."""
Folders = Mapping[str, StageFolder]


def may_print(launched: LaunchedPlan, folders: Folders, keys: Iterable[str]) -> bool:
    """Tell whether any of these stages may still print something."""
    states = stage_states(launched, folders)
    return any(states[key] in ("WAITING", "RUNNING") for key in keys)


def stage_keys(
    launched: LaunchedPlan, folders: Folders, trial: str | None, stage: str | None
) -> list[str]:
    """List the keys of the stages asked for; without a trial, of those that run or have failed.

    Raises:
        ValueError: no such trial or stage.
    """
    if trial is None:
        # UPSTREAM_FAILED stages are left out: they printed nothing.
        states = {key: folders[key].state() for key in launched.stages}
        return [key for key, state in states.items() if state in ("RUNNING", "FAILED")]
    stages = launched.stages_of(trial)
    if stage is None:
        return list(stages.values())
    if stage not in stages:
        raise ValueError(f"no stage {stage!r}; stages of {trial}: {', '.join(stages)}")
    return [stages[stage]]


class LogReader:
    """Reads the logs of a stage as they grow, and goes on to the next attempt's."""

    def __init__(self, folder: StageFolder, name: str, all_attempts: bool = False) -> None:
        self.folder, self.name = folder, name
        self.silent = True
        self._position = 0
        # A character may begin in one piece and end in the next.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._file: Path | None = None
        files = folder.logs()
        # Attempts that begin later are new in either case.
        self._done = set() if all_attempts else set(files[:-1])

    def new(self) -> Iterator[tuple[Path, str]]:
        """Yield what was added since the last time: the log, and a piece of its text."""
        for file in self.folder.logs():
            if file in self._done:
                continue
            if file != self._file:
                if self._file is not None:
                    self._done.add(self._file)
                self._file, self._position = file, 0
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
            yield from self._rest(file)

    def _rest(self, file: Path) -> Iterator[tuple[Path, str]]:
        with file.open("rb") as log:
            log.seek(self._position)
            while new := log.read(PIECE_BYTES):
                self.silent = False
                self._position += len(new)
                yield file, self._decoder.decode(new)


def why_silent(store: Store, reader: LogReader) -> str:
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


def _queue_log(store: Store, reader: LogReader) -> str:
    """Name the job that a stage waits in, if it was queued."""
    if not (store.root / "journal").is_dir():
        return ""
    job = Journal(store).jobs().get(reader.folder.key)
    return "" if job is None else f", it waits as job {job.handle}"
