"""Section that runs a sweep of which two stages share the GPU."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from orchestration import Study
from tests.benchmarks.gpu.rows import Row, Settings

SWEEP = """
question: Do two stages share a GPU?
scale: smoke
axes:
  tokenizer.encoder: [S]
  tokenizer.decoder: {sizes}
set:
  evaluation.num_images: 64
"""


def smoke_sweep(settings: Settings) -> Iterator[Row]:
    """Run a sweep of the scale `smoke` with two stages at a time."""
    sizes = "[S]" if settings.quick else "[S, B, L]"
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "shared.yaml"
        file.write_text(SWEEP.format(sizes=sizes), encoding="utf-8")
        start = time.perf_counter()
        study = Study(str(file), runs=Path(name) / "runs")
        result = study.run(jobs=2)
        spent = time.perf_counter() - start
        states = study.status()
    yield Row(
        "smoke sweep, two stages at a time",
        f"{spent:.0f} s, exit code {result.exit_code}",
        result.exit_code == 0,
        "" if result.exit_code == 0 else str(states),
        {"seconds": spent},
    )
