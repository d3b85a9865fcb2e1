"""Trackers: receivers of a stage's curves, pictures and progress; null and in-memory ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

# Types only: the orchestration imports this module and needs no NumPy.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]


class Tracker(Protocol):
    """Protocol of a stage's reports while it runs. Every call is cheap and waits for no server."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record one point per key at an optimizer step."""

    def image(self, name: str, image: Image, step: int) -> None:
        """Record a picture, uint8 of shape (H, W, 3)."""

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Report how far the stage is; `values` such as loss are for the live display."""

    def sync(self) -> None:
        """Make all that was recorded durable.

        Called before a checkpoint is saved: steps before it are never run again, so their records
        must not be lost in a power cut.
        """


class NullTracker:
    """Tracker that discards everything."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Discard."""

    def image(self, name: str, image: Image, step: int) -> None:
        """Discard."""

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Discard."""

    def sync(self) -> None:
        """Do nothing."""


@dataclass
class MemoryTracker:
    """Tracker that keeps everything in lists, for tests and notebooks."""

    points: list[tuple[str, int, float]] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)
    last_progress: tuple[int, int, str] | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Append one (key, step, value) per key."""
        # In the order of calls, which tests compare.
        self.points += [(key, step, value) for key, value in values.items()]

    def image(self, name: str, image: Image, step: int) -> None:
        """Keep the newest picture of each name."""
        self.images[name] = image

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Keep the newest progress."""
        self.last_progress = (done, total, unit)

    def sync(self) -> None:
        """Do nothing."""
