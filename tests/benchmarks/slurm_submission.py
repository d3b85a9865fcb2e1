"""Stages a second that a launch queues on a real SLURM.

    python -m tests.benchmarks.slurm_submission [--code . --code ../before]

Starts the tests' SLURM on this machine, as root. One job keeps its nodes busy meanwhile, so that
the stages wait in the queue: on a cluster they would not run on the launcher's cores either.
`--code` names the source to measure; several are launched in turn.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tests.orchestration.backends.slurm.slurm_cluster import (
    Cluster,
    preempting,
    run,
    slurm_cluster,
)
from tests.orchestration.programs import ROOT, environment

SWEEP = """question: How fast is it queued?
scale: smoke
set: {{tokenizer.encoder: S, tokenizer.decoder: S}}
axes: {{tokenizer.lr: [{tokenizers}], generator.lr: [{generators}]}}
"""
PROFILE = "default: {time_minutes: 30, slurm: {partition: main}}\n"
SBATCH = """#!/bin/bash
begun=$EPOCHREALTIME
{sbatch} "$@"
code=$?
printf '%s %s %s\\n' "$begun" "$EPOCHREALTIME" "$1" >> {calls}
exit $code
"""
"""An sbatch that writes down when it was called and when it returned, UNIX seconds."""


@dataclass(frozen=True)
class Size:
    """Numbers of trained models: a trial for each generator on each tokenizer's codes."""

    tokenizers: int
    generators: int


@dataclass(frozen=True)
class Measured:
    """Times of one launch.

    Attributes:
        stages: that were queued.
        calls: of sbatch that queued something; the controller's is one.
        checks: of sbatch that only asked whether a request could be met.
        launched: seconds from the start of the process until all stages were queued.
        submitted: the same from the start of the submission, when the journal is locked.
        sbatch: seconds of that within sbatch.
        cpu: CPU seconds of the launcher and its children, what it does afterwards included.
    """

    stages: int
    calls: int
    checks: int
    launched: float
    submitted: float
    sbatch: float
    cpu: float

    def __str__(self) -> str:
        of_submission, of_process = (
            f"{self.stages / seconds:.0f} a second ({seconds:.2f} s)"
            for seconds in (self.submitted, self.launched)
        )
        return (
            f"{self.stages} stages: {of_submission} from the start of the submission, "
            f"{of_process} from that of the process; {self.calls} calls of sbatch "
            f"({self.sbatch:.2f} s) and {self.checks} to check; {self.cpu:.1f} s of CPU"
        )


def make_sweep(folder: Path, size: Size) -> None:
    """Write a sweep over learning rates, with its profile."""
    rates = {
        name: ", ".join(f"{1e-4 + 1e-8 * index:.8f}" for index in range(count))
        for name, count in vars(size).items()
    }
    (folder / "large.yaml").write_text(SWEEP.format(**rates))
    (folder / "profile.yaml").write_text(PROFILE)


def launch(folder: Path, code: Path) -> float:
    """Launch the sweep of a folder to its end; returns CPU seconds."""
    path = f"{folder}:{os.environ['PATH']}"
    words = ["large.yaml", "--backend", "slurm", "--profile", "profile.yaml", "--yes"]
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "orchestration.launch", *words],
        cwd=folder,
        env=environment(code, PATH=path, OMP_NUM_THREADS="1"),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return sum(os.times()[2:4]) - sum(before[2:4])


def measure(folder: Path, code: Path, size: Size) -> Measured:
    """Launch a sweep in a fresh folder and read the times off what it leaves there."""
    make_sweep(folder, size)
    calls, sbatch = folder / "calls", folder / "sbatch"
    sbatch.write_text(SBATCH.format(sbatch=shutil.which("sbatch"), calls=calls))
    sbatch.chmod(0o755)
    begun = sbatch.stat().st_ctime  # the launcher is what comes next
    cpu = launch(folder, code)
    listed = run("squeue", "--me", "--array", "--noheader", "-o", "%j").splitlines()
    lines = [line.split() for line in calls.read_text().splitlines()]
    queued = [(float(start), float(end)) for start, end, word in lines if word != "--test-only"]
    last = max(end for _, end in queued)
    # Nobody else opens the lock of a fresh runs directory, so that it is as old as the submission.
    locked = (folder / "runs" / "journal" / ".lock").stat().st_mtime
    return Measured(
        stages=sum(name.startswith("large-") and "-controller-" not in name for name in listed),
        calls=len(queued),
        checks=len(lines) - len(queued),
        launched=last - begun,
        submitted=last - locked,
        sbatch=sum(end - start for start, end in queued),
        cpu=cpu,
    )


def measure_on(cluster: Cluster, code: Path, size: Size) -> Measured:
    """Measure while the nodes are busy; leaves the queue empty."""
    with tempfile.TemporaryDirectory() as folder, preempting():
        measured = measure(Path(folder), code, size)
        run("scancel", "--me", "--state=PENDING")
    cluster.clear()
    return measured


def main(
    tokenizers: Annotated[int, typer.Option(help="Of three stages each.")] = 83,
    generators: Annotated[int, typer.Option(help="Per tokenizer, of three stages each.")] = 1,
    rounds: int = 3,
    code: Annotated[list[Path] | None, typer.Option(help="Source to measure; repeatable.")] = None,
) -> None:
    """Measure and print."""
    size = Size(tokenizers, generators)
    with tempfile.TemporaryDirectory() as folder, slurm_cluster(Path(folder)) as cluster:
        for _ in range(rounds):
            for source in code or [ROOT]:
                measured = measure_on(cluster, source.resolve(), size)
                print(f"{source.resolve().name}: {measured}", flush=True)


if __name__ == "__main__":
    typer.run(main)
