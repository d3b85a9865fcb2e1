"""Contract of a stage as it runs: what it reports and leaves, also after an interruption.

It runs here, on a CPU, twice: whole, and stopped half-way and gone on with, as a worker does it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from gigatok.config import Config, TrialConfig
from gigatok.names import METRICS
from gigatok.runtime.context import Interrupted, Runtime, Scores
from gigatok.runtime.tracker import MemoryTracker
from gigatok.stages import Stage


@dataclass(frozen=True)
class Run:
    """Result of a stage.

    Attributes:
        hashes: path below the output folder -> sha256.
        polls: how often it asked whether to stop.
        interrupted: it stopped when it was asked to, and was gone on with.
        strays: files that it wrote into the working folder.
    """

    scores: Scores
    tracker: MemoryTracker
    hashes: Mapping[str, str]
    polls: int
    interrupted: bool
    strays: tuple[str, ...]


def broken_by_running(
    stage: Stage, trial: TrialConfig, config: Config, inputs: Mapping[str, Path], place: Path
) -> list[str]:
    """Run a stage twice, and list what it does that it must not.

    Args:
        stage: what to run.
        trial: the trial that it is a part of.
        config: what it reads of the trial.
        inputs: output folders of the stages that it reads.
        place: empty folder for its own.
    """
    before = _hashes(inputs)
    try:
        whole = _run(stage, config, inputs, place / "whole")
        parts = _run(stage, config, inputs, place / "parts", stop_at=max(1, whole.polls // 2))
    except Exception as error:
        return [f"running it: {type(error).__name__}: {error}"]
    found = [*_reported(stage, trial, whole), *_left(whole, parts)]
    if _hashes(inputs) != before:
        found.append("it changes the outputs of other stages")
    return found


def _run(
    stage: Stage, config: Config, inputs: Mapping[str, Path], place: Path, stop_at: int = 0
) -> Run:
    """Run a stage; with `stop_at`, interrupt it at that question whether to stop, and go on."""
    polls, tracker = 0, MemoryTracker()

    def should_stop() -> bool:
        nonlocal polls
        polls += 1
        return polls == stop_at

    runtime = Runtime(checkpoint_dir=place / "checkpoints", should_stop=should_stop)
    folders = [place / name for name in ("checkpoints", "working", "first", "second")]
    for folder in folders:
        folder.mkdir(parents=True)
    _, working, out, last = folders
    # A folder of its own shows what is written to a relative path.
    with chdir(working):
        try:
            scores = stage.run(config, inputs, out, tracker, runtime)
        except Interrupted:
            # The next attempt has the checkpoints, and an empty output folder.
            out = last
            scores = stage.run(config, inputs, out, tracker, runtime)
    strays = tuple(sorted(path.name for path in working.iterdir()))
    return Run(scores, tracker, _hashes({"": out}), polls, out is last, strays)


def _hashes(folders: Mapping[str, Path]) -> dict[str, str]:
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}".lstrip("/"): path
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _reported(stage: Stage, trial: TrialConfig, run: Run) -> Iterator[str]:
    """Compare scores, protocols and curves with what the stage says of itself."""
    values, named = run.scores.metrics, stage.scores(trial)
    if values.keys() != set(named):
        yield f"it reports {_listed(values)}; its `scores` names {_listed(named)}"
    if bad := [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]:
        yield f"{', '.join(bad)}: leave out what has no value, and raise where it must have one"
    shares = (n for n in values if n in METRICS and METRICS[n].share and not 0 <= values[n] <= 1)
    if outside := [f"{name} {values[name]}" for name in shares]:
        yield f"{', '.join(outside)}: registered with share=True, and not within 0 and 1"
    # Those in tables: two numbers side by side must be known to be measured alike.
    shown = {name for name in values if name in METRICS and METRICS[name].column is not None}
    if lacking := sorted(shown - run.scores.protocol.keys()):
        yield f"{', '.join(lacking)} has no protocol; say how it was measured, on which images"
    # More may be logged: a search follows those that are named.
    logged = {name for name, *_ in run.tracker.points}
    if absent := set(stage.curves(trial)) - logged:
        yield f"its `curves` names {_listed(absent)}, and it does not log it"


def _left(whole: Run, parts: Run) -> Iterator[str]:
    """Compare what both runs left."""
    how = "stopped half-way and gone on with" if parts.interrupted else "run again"
    names = whole.hashes.keys() | parts.hashes.keys()
    if other := sorted(n for n in names if whole.hashes.get(n) != parts.hashes.get(n)):
        yield f"{how}, it leaves another {', '.join(other)}"
    if parts.scores.metrics != whole.scores.metrics:
        yield f"{how}, it reports other scores"
    if whole.strays:
        yield f"it writes {', '.join(whole.strays)} outside of its output folder"


def _listed(names: object) -> str:
    return ", ".join(sorted(names)) or "nothing"  # type: ignore[call-overload]
