"""How long a relaunch of 10,000 finished stages takes: python -m tests.benchmarks.relaunch_10k.

Stage folders are written as workers leave them. Sending everything to MLflow and drawing the
figure then takes many minutes; `--keep` does that once, best in a folder in memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from gigatok.stages import STAGES
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.stage_records import Attempt, Done
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from tests.benchmarks.status_10k import ROOT, TRIALS, make_folder, make_sweep

LAUNCH = ["orchestration.launch", "large.yaml", "--no-patch"]


def finish(store: Store, plan: Plan) -> None:
    """Write the folder of every stage as a worker leaves it at the end, with all its scores."""
    folders = store.folders((s.stage, key, s.readable) for key, s in plan.stages.items())
    for index, (key, stage) in enumerate(plan.stages.items()):
        folder, now = folders[key], time.time()
        make_folder(folder, stage)
        attempt = Attempt(number=1, host="node-1", pid=1, started=now - 1.0, ended=now)
        attempt = attempt.model_copy(update={"outcome": "complete"})
        (folder.path / "attempts" / "001.json").write_text(attempt.model_dump_json())
        names = STAGES[stage.stage].scores(stage.trial)
        # Falling: a tokenizer has more parameters than its head alone, or no figure is drawn and
        # every relaunch tries again.
        scores = {name: 20.0 - place + index % 100 for place, name in enumerate(names)}
        protocol = dict.fromkeys(scores, "256 val images")
        done = Done(
            metrics=scores, protocol=protocol, artifacts={}, finished=now, seconds=1.0, attempt=1
        )
        folder.done_file.write_text(done.model_dump_json())


def run(folder: Path, words: list[str]) -> tuple[float, float]:
    """Seconds of the whole command, the interpreter's start included: by the clock, of CPU."""
    started, before = time.monotonic(), os.times()
    subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = os.times()
    return time.monotonic() - started, sum(after[2:4]) - sum(before[2:4])


def measure(folder: Path, trials: int, repeats: int) -> None:
    """Finish a sweep in a folder, unless it is there, and print the times of its relaunches."""
    sweep = load_sweep(make_sweep(folder, trials))
    plan, store = make_plan(sweep, expand(sweep)), Store(folder / "runs")
    if not store.stages.exists():
        finish(store, plan)
        # A launch that has nothing to run sends for a minute, `sync` until all is sent.
        for name, words in (("first launch", LAUNCH), ("sync", ["orchestration", "sync"])):
            seconds, cpu = run(folder, words)
            print(f"{name} {seconds:.1f} s ({cpu:.1f} s of CPU)", flush=True)
        run(folder, LAUNCH)  # draws the figure
    print(f"{len(plan.trials)} trials, {len(plan.stages)} stages")
    for _ in range(repeats):
        seconds, cpu = run(folder, LAUNCH)
        print(f"relaunch {seconds:.2f} s ({cpu:.2f} s of CPU)", flush=True)


def main(
    trials: Annotated[int, typer.Option(help="Of six stages each, none shared.")] = TRIALS,
    repeats: int = 3,
    keep: Annotated[Path | None, typer.Option(help="Finish the sweep here, once.")] = None,
) -> None:
    """Measure a command that has nothing to do."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        measure(keep, trials, repeats)
        return
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), trials, repeats)


if __name__ == "__main__":
    typer.run(main)
