"""How long planning takes: `python tests/benchmarks/planning.py [TRIALS]`."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer


def main(trials: int = 10_000, repeats: int = 5) -> None:
    """Time `--dry-run` of a sweep with so many trials, process start included."""
    side = math.isqrt(trials)
    rates = [round(1e-4 * (1 + i / 10), 8) for i in range(side)]
    text = (
        "question: How long does planning take?\nscale: micro\n"
        "set: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
        f"axes: {{tokenizer.lr: {rates}, generator.lr: {rates}}}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "large.yaml"
        sweep.write_text(text)
        command = [sys.executable, "-m", "orchestration.launch", str(sweep), "--dry-run"]
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            print(f"{side * side} trials planned in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    typer.run(main)
