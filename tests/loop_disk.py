"""A small real file system in a file, whose power can be cut."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4 and XFS: _IOR('X', 125, __u32)
NO_FLUSH = struct.pack("I", 2)  # neither data nor journal is written any more
MEGABYTES = 320  # the smallest XFS has 300
SECONDS = 60.0


@dataclass(frozen=True)
class LoopDisk:
    """A mounted file system.

    Attributes:
        image: file that holds it.
        root: where it is mounted.
    """

    image: Path
    root: Path

    def mount(self) -> None:
        """Mount, which replays the journal."""
        _run("mount", "-o", "loop", self.image, self.root)

    def unmount(self) -> None:
        """Unmount, as soon as nobody uses it."""
        deadline = time.monotonic() + SECONDS
        while subprocess.run(["umount", self.root], capture_output=True).returncode != 0:
            assert time.monotonic() < deadline, f"{self.root} is in use"
            time.sleep(0.1)

    def cut_power(self) -> None:
        """Lose everything that was not flushed; whoever uses the disk gets errors."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, NO_FLUSH)
        finally:
            os.close(descriptor)


@contextmanager
def loop_disk(folder: Path, kind: str) -> Iterator[LoopDisk]:
    """Make and mount a file system; skips the test where this machine does not allow it."""
    disk = LoopDisk(folder / f"{kind}.img", folder / kind)
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        # CI installs the tool, so that it is missing there is a failure.
        assert "CI" not in os.environ, f"needs root and mkfs.{kind}"
        pytest.skip(f"needs root and mkfs.{kind}")
    disk.root.mkdir()
    with disk.image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    _run(f"mkfs.{kind}", "-q", disk.image)
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device can be mounted here: {error.stderr.decode()}")
    try:
        yield disk
    finally:
        disk.unmount()


def kill_session(leader: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a session; its leader may have ended, and others live on."""
    victims = [process for process in psutil.process_iter() if _session(process) == leader.pid]
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    leader.wait()
    psutil.wait_procs(victims, timeout=SECONDS)


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
