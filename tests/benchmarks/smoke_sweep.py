"""How long a smoke sweep takes, and its relaunch: python -m tests.benchmarks.smoke_sweep.

Both are whole commands, the interpreter's start included. The sweep has 20 stages, runs in a new
folder each time, and ends with its figure, its report and a complete MLflow store.
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

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "orchestration.launch", "decoder_scaling", "--scale", "smoke"]


def launch(folder: Path) -> tuple[float, float]:
    """Run the sweep in a folder; return seconds by the clock and of CPU, children included."""
    started, before = time.monotonic(), os.times()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(COMMAND, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return time.monotonic() - started, sum(after[2:4]) - sum(before[2:4])


def main(
    rounds: int = 3,
    relaunches: Annotated[int, typer.Option(help="In each round.")] = 3,
) -> None:
    """Measure and print."""
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(1 + relaunches):
                seconds, cpu = launch(Path(folder))
                name = "relaunch" if number else "sweep of 20 stages"
                print(f"{name}: {seconds:.2f} s ({cpu:.2f} s of CPU)", flush=True)


if __name__ == "__main__":
    typer.run(main)
