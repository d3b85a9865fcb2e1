"""How long planning takes: `python tests/benchmarks/planning.py [TRIALS]`."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer


def main(trials: int = 10_000, repeats: int = 5) -> None:
    """Time `--dry-run` of a sweep with `solve`, `derive` and `where`, process start included."""
    side = math.isqrt(trials // 4)
    rates = [round(1e-4 * (1 + i / 10), 8) for i in range(side + 1)]
    text = (
        "question: How long does planning take?\nscale: micro\n"
        "axes:\n  tokenizer.encoder: [S, L]\n  tokenizer.decoder: [S, B]\n"
        f"  tokenizer.lr: {rates[1:]}\n  generator.lr: {rates}\n"
        "solve:\n  tokenizer.steps: "
        "{make: flops.train, equal: 3e13, within: 0.01, between: [100, 10_000]}\n"
        "derive: {share: params.decoder / params.tokenizer}\n"
        "where: [share > 0.1 and generator.lr > 1e-4]\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "large.yaml"
        sweep.write_text(text)
        command = [sys.executable, "-m", "orchestration.launch", str(sweep), "--dry-run"]
        for _ in range(repeats):
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall, after = (
                time.perf_counter() - started,
                resource.getrusage(resource.RUSAGE_CHILDREN),
            )
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{4 * side * side} trials planned in {wall:.2f} s, {cpu:.2f} s of CPU")


if __name__ == "__main__":
    typer.run(main)
