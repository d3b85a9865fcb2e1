"""Commands of this program as a user types them: in a folder, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(code: Path = ROOT, **changes: str) -> dict[str, str]:
    """Variables of a process that imports the code of a folder, wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(code), **changes}


def call(
    folder: Path,
    *words: str,
    code: int = 0,
    seconds: float = 600.0,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS` to its end, which must come with an exit code.

    Args:
        folder: where the user is.
        words: module and arguments.
        code: that is expected.
        seconds: after which the test fails.
        variables: of the process; None: `environment`.
    """
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment() if variables is None else variables,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done
