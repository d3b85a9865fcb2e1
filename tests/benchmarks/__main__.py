"""Run all benchmarks behind `docs/performance.md`, one after the other.

    python -m tests.benchmarks > benchmarks.txt

Each is a process of its own and prints its figures as it goes; comparisons take turns within one.
Nothing else should run on the machine. It takes about an hour on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Benchmark:
    """Module of this folder, its arguments, and what its figures should reach."""

    module: str
    arguments: str
    goal: str


BENCHMARKS = (
    Benchmark("smoke_sweep", "", "sweep below 12 s, relaunch below .5 s"),
    Benchmark("planning", "", "10,000 trials in less than 1 s"),
    Benchmark("relaunch_10k", "", "10,000 stages in less than 3 s"),
    Benchmark("idle_stages", "--backend local --backend ray", ".7 of plain processes"),
    Benchmark("slurm_submission", "", "60 stages a second"),
    Benchmark("runs_table", "", "100,000 trials x 50 metrics, cold, in less than 3 s"),
    Benchmark("dashboard_10k", "", "first view in less than 1.5 s"),
    Benchmark("models", "--only S-S --only Inception", "2x; training 1.6x; Inception 1.8x"),
    Benchmark("models", "--only GPT --rounds 1", "training 1.3x; sampling 2.5x and 3x"),
)


def main(
    only: Annotated[list[str] | None, typer.Option(help="module; repeatable")] = None,
) -> None:
    """Run all of them, or some; one that fails does not keep the others from running."""
    failed = []
    for benchmark in BENCHMARKS:
        if only and benchmark.module not in only:
            continue
        print(
            f"\n== {benchmark.module} {benchmark.arguments} (goal: {benchmark.goal})", flush=True
        )
        started = time.monotonic()
        command = [sys.executable, "-m", f"tests.benchmarks.{benchmark.module}"]
        done = subprocess.run(
            [*command, *benchmark.arguments.split()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        print(f"== {time.monotonic() - started:.0f} s, exit code {done.returncode}", flush=True)
        failed += [benchmark.module] if done.returncode else []
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    typer.run(main)
