"""A finished sweep, and a browser to look at it with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dashboards.serving import ARGUMENTS, CHROMIUM, ROOT, launch_command


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium; CI installs it, so that it is missing there is a failure."""
    if not Path(CHROMIUM).exists() and "CI" not in os.environ:
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The runs directory of a finished search and, newer, of a finished smoke sweep."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("search", "study"):
        command, environment = launch_command(folder, name)
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    return folder / "runs"


@pytest.fixture
def runs_copy(finished, tmp_path) -> Path:
    """A copy of the finished runs directory; its pictures stay where they were."""
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"
