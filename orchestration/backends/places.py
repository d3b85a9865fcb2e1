"""Places of this machine: what stages take while they run, and how many run at a time."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass

MOST_PER_DEVICE = 8
"""Workers that may share a core or a GPU: with more, each holds memory and waits for others."""


@dataclass(frozen=True)
class Places:
    """Places of this machine, which stages take while they run.

    Attributes:
        cores: cores that this process may use.
        gpus: GPU of each place; all empty where there are no GPUs.
        jobs: stages at a time at most.
    """

    cores: int
    gpus: tuple[str, ...]
    jobs: int

    def width(self, processes: int) -> int:
        """Count the places that a stage of so many processes takes."""
        # A GPU for each process. Without GPUs a core for each, of which a place may have several;
        # where there are not as many, the stage takes all.
        each = 1 if self.gpus[0] else max(1, self.cores // len(self.gpus))
        return min(len(self.gpus), math.ceil(processes / each))

    def at_once(self, processes: int) -> int:
        """Count the stages of so many processes that run at a time."""
        return min(self.jobs, len(self.gpus) // self.width(processes))

    def threads(self, processes: int) -> int:
        """Count the threads of each process of such a stage."""
        # Torch would otherwise start one thread per core in every worker, and they would fight for
        # cores.
        return max(1, self.cores // (self.at_once(processes) * processes))


def find_places(jobs: int | None, at_most: int | None = None) -> Places:
    """Share this machine out: a place per GPU; without GPUs one per core, at most 4.

    Args:
        jobs: stages at a time that the user asks for; with more than GPUs, stages share them.
            None: one per place.
        at_most: of the profile, where the user asks for nothing; None: any number.

    Raises:
        ValueError: `jobs` is not positive, or more than this machine can run.
    """
    # The affinity, not the count of the machine: in a container or a job only some of its cores
    # are ours.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    gpus = visible_gpus()
    most = MOST_PER_DEVICE * (len(gpus) or cores)
    if jobs is not None and not 1 <= jobs <= most:
        here = f"{len(gpus)} GPUs" if gpus else f"{cores} cores"
        allowed = f"must be at least 1 and, on this machine of {here}, at most {most}"
        raise ValueError(f"--jobs {jobs}: {allowed}; leave it out for what suits the machine")
    usual = len(gpus) or min(cores, 4)
    count = jobs or min(usual, at_most or usual)
    # Every GPU is a place, however few stages there are: one stage may take several.
    names = [gpus[index % len(gpus)] if gpus else "" for index in range(max(count, len(gpus)))]
    return Places(cores, tuple(names), count)


def visible_gpus() -> list[str]:
    """List the GPUs of `CUDA_VISIBLE_DEVICES`, or all that nvidia-smi lists.

    Asking torch would create a CUDA context in the launcher.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Empty is a choice as well: the user wants no GPU, and nvidia-smi would list them all the
    # same.
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listing = subprocess.run(
        [tool, "-L"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    # With MIG, indented lines name the parts of a GPU; only whole GPUs are counted.
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return [str(index) for index in range(count)]
