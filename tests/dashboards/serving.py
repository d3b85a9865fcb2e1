"""A live page over a runs directory, and what launches a sweep for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "![](http://elsewhere.invalid/a.png) <img src=http://elsewhere.invalid/b.png>"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--no-first-run"]


@contextmanager
def serve(runs: Path, *options: str) -> Iterator[str]:
    """The address of a page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dashboards", "--runs-dir", str(runs), "--port", str(port)]
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: answers(address) or server.poll() is not None, 120)
            assert server.poll() is None, server.stdout.read() if server.stdout else ""
            yield address
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:  # A page that is still open holds it back.
                server.kill()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def launch_command(folder: Path, name: str = "study") -> tuple[list[str], dict[str, str]]:
    """What launches a smoke sweep of two trials."""
    sweep = folder / f"{name}.yaml"
    sweep.write_text(
        # An image that a browser must not fetch; see `page_of` in `test_browser.py`.
        f"question: 'What does a larger decoder buy? {IMAGE}'\npaper: Table 2\nscale: smoke\n"
        "axes: {tokenizer.decoder: [S, B, L]}\nset: {tokenizer.encoder: S, generator.size: S}\n"
        "seeds: [0]\nstages: all\n"
    )
    options = ["--runs-dir", str(folder / "runs"), "--yes", "--jobs", "1"]
    return [sys.executable, "-m", "orchestration.launch", str(sweep), *options], {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }
