"""Where a stage reports curves, pictures and progress; null and in-memory trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]


class Tracker(Protocol):
    """What a stage may say while it runs. Every call is cheap and never waits for a server."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record one point per key at an optimizer step."""

    def image(self, name: str, image: Image, step: int) -> None:
        """Record a picture, uint8 of shape (H, W, 3)."""

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Say how far the stage is; `values` such as loss are for the live display."""

    def sync(self) -> None:
        """Make all that was recorded durable.

        Called before a checkpoint is saved: steps before it are never run again, so what they
        recorded must not be lost with a power cut.
        """


class NullTracker:
    """Discards everything."""

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
    """Keeps everything in lists, for tests and notebooks."""

    points: list[tuple[str, int, float]] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)
    last_progress: tuple[int, int, str] | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Append one (key, step, value) per key."""
        self.points += [(key, step, value) for key, value in values.items()]

    def image(self, name: str, image: Image, step: int) -> None:
        """Keep the newest picture of each name."""
        self.images[name] = image

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Keep the newest progress."""
        self.last_progress = (done, total, unit)

    def sync(self) -> None:
        """Do nothing."""
