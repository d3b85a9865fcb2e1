"""How fast the live page is with 10,000 trials: `python tests/benchmarks/dashboard_10k.py`.

Makes an MLflow database of that many trials (see `runs_table.py`), serves it, and opens it in
headless Chromium. The first view counts from opening the address in a new browser until its chart
and its table of trials are there; an interaction from the click until what it asked for is there.
Beside the time stand the CPU seconds of server and browser, which other work on the machine does
not change.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psutil
import typer
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
from runs_table import make_store

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
WAIT_MS, REST_MS = 60_000, 1000
DRAWN = """() => [...document.querySelectorAll('.stVegaLiteChart canvas')].some(canvas => {
  if (canvas.dataset.old || !canvas.width || !canvas.height) return false;
  // A strip across the middle. Marks are coloured, texts and grid are grey.
  const strip = [0, Math.floor(canvas.height / 2), canvas.width, 40];
  const {data} = canvas.getContext('2d').getImageData(...strip);
  let marks = 0;
  for (let i = 0; i < data.length; i += 4)
    marks += data[i + 3] === 255 && Math.abs(data[i] - data[i + 2]) > 60;
  return marks > 1000;
})"""
"""Tells whether the marks of a chart are there, and not only its frame; of one that is not old."""
AGE = "document.querySelectorAll('canvas').forEach(canvas => canvas.dataset.old = true)"


@contextmanager
def served(runs: Path, cache: Path) -> Iterator[tuple[str, int]]:
    """The address of a page over a runs directory, and its process."""
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
            seconds = time.perf_counter() - started
            print(f"server up: {seconds:.2f} s ({worked(server.pid):.2f} s CPU)")
            yield address, server.pid
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
    except OSError:
        return False
    return True


def worked(*processes: int) -> float:
    """CPU seconds of processes and of the children that they have."""
    found = [psutil.Process(process) for process in processes]
    every = [*found, *(child for one in found for child in one.children(recursive=True))]
    return sum(sum(one.cpu_times()[:2]) for one in every)


class Watch:
    """Times of what is done to a page."""

    def __init__(self, page: Page, server: int, browser: int) -> None:
        self.page, self._server, self._browser = page, server, browser

    def timed(
        self, name: str, act: Callable[[], object], text: str, *, chart: bool = False
    ) -> None:
        """Print how long after an act some text is there, and a chart drawn anew."""
        # What was asked for before is looked at, and drawn to its end, before the next click.
        self.page.wait_for_timeout(REST_MS)
        self.page.evaluate(AGE)
        before = worked(self._server), worked(self._browser)
        started, page = time.perf_counter(), self.page
        act()
        page.get_by_text(text).first.wait_for(timeout=WAIT_MS)
        page.wait_for_function("!document.querySelector('[data-stale=true]')", timeout=WAIT_MS)
        if chart:
            # Not at every frame: looking takes time as well.
            page.wait_for_function(DRAWN, timeout=WAIT_MS, polling=20)
        seconds = time.perf_counter() - started
        of_server, of_browser = worked(self._server) - before[0], worked(self._browser) - before[1]
        print(
            f"{name}: {seconds:.2f} s (CPU: server {of_server:.2f} s, browser {of_browser:.2f} s)",
            flush=True,
        )


def measure(address: str, server: int) -> None:
    """Open every view."""
    with sync_playwright() as playwright:
        driver = set(psutil.Process().children(recursive=True))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        started = set(psutil.Process().children(recursive=True)) - driver
        chromium = min(started, key=lambda process: process.create_time()).pid
        for visit in ("first view, first visit", "first view, second visit"):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            watch = Watch(page, server, chromium)
            table = "Every trial (CSV)"
            watch.timed(visit, lambda page=page: page.goto(address), table, chart=True)
        visit_views(watch, table)
        browser.close()


def visit_views(watch: Watch, table: str) -> None:
    """Turn to the other views, and use them."""
    page, timed = watch.page, watch.timed
    view = page.get_by_test_id("stButtonGroup").get_by_role("radio")
    hint = "Hover over a point"
    switch = page.get_by_test_id("stCheckbox").filter(has_text="Front").first
    timed("to Scaling", lambda: view.filter(has_text="Scaling").click(), hint, chart=True)
    timed("with the front", switch.click, hint, chart=True)
    timed("without it", switch.click, hint, chart=True)
    timed("to Trial", lambda: view.filter(has_text="Trial").click(), "Pictures")
    timed("its Diff", lambda: page.get_by_text("Diff", exact=True).click(), "Against")
    timed("to Study", lambda: view.filter(has_text="Study").click(), table, chart=True)


def main(
    trials: int = 10_000,
    keep: Annotated[Path | None, typer.Option(help="Make the store here, once.")] = None,
) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        runs = keep or Path(folder)
        runs.mkdir(parents=True, exist_ok=True)
        if not (runs / "mlflow.db").exists():
            make_store(runs / "mlflow.db", trials, metrics=30, params=114, apart=False)
        with served(runs, Path(folder) / "cache") as page:
            measure(*page)


if __name__ == "__main__":
    typer.run(main)
