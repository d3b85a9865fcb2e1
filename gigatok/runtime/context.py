"""Arguments and result of a stage that depend on where it runs. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MEETING_VARIABLE = "GIGATOK_MEETING"
"""Names a file through which the processes of one machine find each other."""


@dataclass(frozen=True)
class Ranks:
    """Number of this process among the processes that run a stage together.

    Attributes:
        rank: 0 to world - 1. Rank 0 holds the lease, writes files and reports.
        world: number of processes.
        local_rank: rank among the processes of this machine; it chooses the GPU.
        meeting: file through which they find each other; None: by MASTER_ADDR and MASTER_PORT.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    meeting: str | None = None

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Ranks:
        """Read torchrun's RANK, WORLD_SIZE and LOCAL_RANK, and the meeting's file.

        Without them, there is one process.

        Raises:
            ValueError: only one of RANK and WORLD_SIZE is set, or they contradict each other.
        """
        rank, world = environment.get("RANK"), environment.get("WORLD_SIZE")
        # No launcher has set anything: one process of its own.
        if rank is None and world is None:
            return Ranks()
        # Guessing would let processes train apart and overwrite each other.
        if rank is None or world is None or not 0 <= int(rank) < int(world):
            raise ValueError(
                f"RANK is {rank} and WORLD_SIZE is {world}: set both, with RANK from 0 to "
                "WORLD_SIZE - 1 as torchrun does, or neither"
            )
        # On one machine, the usual case, both ranks are the same.
        local = int(environment.get("LOCAL_RANK", rank))
        return Ranks(int(rank), int(world), local, environment.get(MEETING_VARIABLE))

    def share(self, batch_size: int) -> slice:
        """Return the samples of a batch that this process takes.

        Raises:
            ValueError: the batch does not split evenly.
        """
        size, rest = divmod(batch_size, self.world)
        # Unequal shares would weigh samples unequally when gradients are averaged over processes.
        if rest:
            raise ValueError(
                f"a batch of {batch_size} does not split evenly over {self.world} processes; "
                "use a number of processes that divides it"
            )
        # Consecutive, so that shares concatenated in the order of ranks are the batch.
        return slice(self.rank * size, (self.rank + 1) * size)


@dataclass(frozen=True)
class Runtime:
    """Settings of a stage's run on this machine; they never affect its result."""

    checkpoint_dir: Path
    device: str = "cpu"
    ranks: Ranks = Ranks()
    micro_batch: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    """Returns true when the stage must save a checkpoint and raise `Interrupted`."""

    def until_stopped(
        self, items: Iterable[T], then: str = "this stage starts over"
    ) -> Iterator[T]:
        """Yield items for as long as the stage may work on.

        Args:
            items: parts of the work, such as batches.
            then: what happens to what is done already, for the message.

        Raises:
            Interrupted: the stage was asked to stop; the item at hand is not begun.
        """
        for item in items:
            # Before each item and not after: a stage that has all its results is not stopped.
            if self.should_stop():
                raise Interrupted(f"stopped on request; {then}")
            yield item


@dataclass(frozen=True)
class Scores:
    """Final scores of a stage by name (`gigatok.names`), and how each was measured."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    """Source of adopted weights: their file, and how they fitted; empty otherwise."""


class Interrupted(Exception):
    """Interruption: a stage stopped on request and saved a checkpoint to continue from."""
