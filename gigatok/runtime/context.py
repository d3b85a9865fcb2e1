"""The arguments and the result of a stage that depend on where it runs. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Ranks:
    """Which one this process is of those that run a stage together.

    Attributes:
        rank: 0 to world - 1. Rank 0 holds the lease, writes files and reports.
        world: how many there are.
        local_rank: the same as `rank`, counted on this machine: which GPU to take.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Ranks:
        """What torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; without them, one process.

        Raises:
            ValueError: only one of RANK and WORLD_SIZE is there, or they contradict each other.
        """
        rank, world = environment.get("RANK"), environment.get("WORLD_SIZE")
        if rank is None and world is None:
            return Ranks()
        if rank is None or world is None or not 0 <= int(rank) < int(world):
            raise ValueError(
                f"RANK is {rank} and WORLD_SIZE is {world}: set both, with RANK from 0 to "
                "WORLD_SIZE - 1 as torchrun does, or neither"
            )
        return Ranks(int(rank), int(world), int(environment.get("LOCAL_RANK", rank)))

    def share(self, batch_size: int) -> slice:
        """Which samples of a batch this process takes.

        Raises:
            ValueError: the batch does not split evenly.
        """
        size, rest = divmod(batch_size, self.world)
        if rest:
            raise ValueError(
                f"a batch of {batch_size} does not split evenly over {self.world} processes; "
                "use a number of processes that divides it"
            )
        return slice(self.rank * size, (self.rank + 1) * size)


@dataclass(frozen=True)
class Runtime:
    """How a stage runs on this machine; never part of what it computes."""

    checkpoint_dir: Path
    device: str = "cpu"
    ranks: Ranks = Ranks()
    micro_batch: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    """Becomes true when the stage must save a checkpoint and raise `Interrupted`."""


@dataclass(frozen=True)
class Scores:
    """Final scalars of a stage by name (`gigatok.names`), and how each was measured."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    """Of adopted weights: which file they are from and how they fitted; empty otherwise."""


class Interrupted(Exception):
    """A stage stopped on request after saving its checkpoint; running it again continues."""
