"""How fast the live page is with 10,000 trials: `python tests/benchmarks/dashboard_10k.py`.

Makes an MLflow database of that many trials (see `runs_table.py`), serves it, and opens it in
headless Chromium. The first view counts from opening the address in a new browser until its chart
and its table of trials are there; an interaction from the click until what it asked for is there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
from runs_table import make_store

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
WAIT_MS = 60_000


@contextmanager
def served(runs: Path, cache: Path) -> Iterator[str]:
    """The address of a page over a runs directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dashboards", "--runs-dir", str(runs), "--port", str(port)]
    started = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | {"GIGATOK_CACHE": str(cache)}) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            while not _answers(address):
                time.sleep(0.1)
            print(f"server up: {time.perf_counter() - started:.2f} s")
            yield address
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
    except OSError:
        return False
    return True


def timed(
    name: str, act: object, page: Page, text: str, gone: str = "", *, chart: bool = False
) -> None:
    """Print how long after an act some text is on the page, another gone, and a chart drawn."""
    started = time.perf_counter()
    act()  # type: ignore[operator]
    page.get_by_text(text).first.wait_for(timeout=WAIT_MS)
    if gone:
        page.get_by_text(gone).first.wait_for(state="detached", timeout=WAIT_MS)
    page.wait_for_function("!document.querySelector('[data-stale=true]')", timeout=WAIT_MS)
    if chart:
        page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=WAIT_MS)
    print(f"{name}: {time.perf_counter() - started:.2f} s")


def measure(address: str) -> None:
    """Open every view."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for visit in ("first view, first visit", "first view, second visit"):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            table = "Every trial (CSV)"
            timed(visit, lambda page=page: page.goto(address), page, table, chart=True)
        view = page.get_by_test_id("stButtonGroup").get_by_role("radio")
        hint = "Hover over a point"
        timed(
            "to Scaling", lambda: view.filter(has_text="Scaling").click(), page, hint, chart=True
        )
        timed("with the front", lambda: page.get_by_text("Front").click(), page, "Pareto front")
        front = "Pareto front"
        timed("without it", lambda: page.get_by_text("Front").first.click(), page, hint, front)
        timed("to Trial", lambda: view.filter(has_text="Trial").click(), page, "Pictures")
        timed("its Diff", lambda: page.get_by_text("Diff").click(), page, "Against")
        timed("to Study", lambda: view.filter(has_text="Study").click(), page, table)
        browser.close()


def main(
    trials: int = 10_000,
    keep: Annotated[Path | None, typer.Option(help="Make the store here, once.")] = None,
) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        runs = keep or Path(folder)
        runs.mkdir(parents=True, exist_ok=True)
        if not (runs / "mlflow.db").exists():
            make_store(runs / "mlflow.db", trials, metrics=30, params=114)
        with served(runs, Path(folder) / "cache") as address:
            measure(address)


if __name__ == "__main__":
    typer.run(main)
