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
    with _page(runs, *options) as (address, _):
        yield address


@contextmanager
def serve_actions(runs: Path) -> Iterator[tuple[str, str]]:
    """The address of a page that stops and retries, and the token that it prints first."""
    with _page(runs, "--allow-actions") as (address, server):
        assert server.stdout is not None
        yield address, server.stdout.readline().decode().rpartition("token=")[2].strip()


@contextmanager
def _page(runs: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
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
            yield address, server
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


SWEEPS = {
    # An image that a browser must not fetch; see `page_of` in `test_browser.py`.
    "study": f"question: 'What does a larger decoder buy? {IMAGE}'\npaper: Table 2\n"
    "scale: smoke\naxes: {tokenizer.decoder: [S, L]}\nseeds: [0, 1]\nstages: all\n"
    "set: {tokenizer.encoder: S, generator.size: S}\n"
    "claims: {decoder_helps: psnr at tokenizer.decoder=L is higher than at S}\n",
    # One stage that is long enough to be stopped.
    "long": "question: When does it end?\nscale: smoke\nstages: [train_tokenizer]\n"
    "set: {tokenizer.encoder: S, tokenizer.decoder: S, tokenizer.steps: 3000}\n",
    # As text 12 would stand before 8.
    "search": "question: How many steps?\nscale: smoke\nstages: [evaluate_reconstruction]\n"
    "set: {tokenizer.encoder: S, tokenizer.decoder: S}\nsearch:\n"
    "  space: {tokenizer.steps: {low: 8, high: 12, step: 4}}\n"
    "  sampler: grid\n  objectives: [psnr]\n  budget: {trials: 2}\n",
}


def launch_command(folder: Path, name: str = "study") -> tuple[list[str], dict[str, str]]:
    """What launches a smoke sweep: four trials of two settings, one trial, or a search of two."""
    sweep = folder / f"{name}.yaml"
    sweep.write_text(SWEEPS[name])
    options = ["--runs-dir", str(folder / "runs"), "--yes", "--jobs", "2"]
    return [sys.executable, "-m", "orchestration.launch", str(sweep), *options], {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }
