"""Places of this machine: how its cores and GPUs are shared out among stages."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
