"""The notebook of the examples, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_notebook_runs_from_plan_to_reconstruction(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "notebook.py")]
    code = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run(
        command, cwd=tmp_path, env=code, check=True, capture_output=True, text=True, timeout=900
    )
    assert "3 trials, 20 stages" in first.stdout
    assert "20 stages run, 0 reused, 0 failed" in first.stdout
    assert (tmp_path / "figures" / "decoder_scaling-smoke.png").stat().st_size > 0
    assert (tmp_path / "reconstruction.png").stat().st_size > 0
    again = subprocess.run(
        command, cwd=tmp_path, env=code, check=True, capture_output=True, text=True, timeout=900
    )
    assert "0 stages run, 20 reused, 0 failed" in again.stdout
