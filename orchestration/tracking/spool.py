"""What a stage reports, kept on local disk first: one JSON line per event, one file per attempt.

The writer is the `Tracker` that a worker hands to its stage. The reader yields every point once:
an attempt that resumes from a checkpoint logs the steps after it again, and the first record of a
(metric, step) is the one that counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.state import StageFolder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Point:
    """One value of a curve; `time` is UNIX milliseconds and never changes once written."""

    name: str
    step: int
    value: float
    time: int


@dataclass(frozen=True)
class Picture:
    """A PNG below the spool folder."""

    name: str
    step: int
    file: Path


class SpoolWriter:
    """A `gigatok.tracker.Tracker` that appends to a stage's spool."""

    def __init__(
        self,
        folder: StageFolder,
        attempt: int,
        on_progress: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._folder = folder.spool
        self._on_progress = on_progress
        # Line-buffered: a killed process loses at most the line it was writing.
        self._file = (folder.spool / f"{attempt:03d}.jsonl").open(
            "a", buffering=1, encoding="utf-8"
        )

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Append one point per key."""
        self._write({"s": step, "m": {key: float(value) for key, value in values.items()}})

    def image(self, name: str, image: Image, step: int) -> None:
        """Write a PNG, then its line."""
        from PIL import Image as PillowImage

        file = self._folder / f"{name}-{step:08d}.png"
        temporary = file.with_suffix(".tmp")
        PillowImage.fromarray(image).save(temporary, format="png")
        temporary.replace(file)
        self._write({"s": step, "image": name, "file": file.name})

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Hand the progress to the heartbeat."""
        self._on_progress({"done": done, "total": total, "unit": unit, **values})

    def close(self) -> None:
        """Make everything durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps({"t": int(time.time() * 1000), **event}) + "\n")


class SpoolReader:
    """Reads a stage's spool piece by piece while it grows; knows what it has already given."""

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self._seen: set[tuple[str, int]] = set()
        self.positions: dict[str, int] = {}
        """Spool file -> bytes read."""
        self.newest: dict[str, Picture] = {}
        """The last picture of each name so far."""

    def lines(self, stop: Mapping[str, int] | None = None) -> Iterator[list[Point | Picture]]:
        """What is new in each unread line; a line counts as read once it is yielded.

        Args:
            stop: read each file up to this byte only; None: to its last complete line.
        """
        for file in sorted(self._folder.spool.glob("*.jsonl")):
            end = None if stop is None else stop.get(file.name, 0)
            for event in self._events(file, end):
                yield [item for item in _items(self._folder, event) if self._is_new(item)]

    def skip_to(self, positions: Mapping[str, int]) -> None:
        """Take everything before these positions as read."""
        for _ in self.lines(stop=positions):
            pass

    def has_more(self, positions: Mapping[str, int]) -> bool:
        """Whether there are complete lines behind these positions."""
        return any(
            _lines_behind(file, positions.get(file.name, 0))
            for file in self._folder.spool.glob("*.jsonl")
        )

    def _events(self, file: Path, end: int | None) -> Iterator[dict[str, Any]]:
        position = self.positions.get(file.name, 0)
        with file.open("rb") as lines:
            lines.seek(position)
            while end is None or position < end:
                line = lines.readline()
                # A line without its end is one that a killed worker was writing, or is writing.
                if not line.endswith(b"\n"):
                    return
                event = json.loads(line)
                position += len(line)
                self.positions[file.name] = position
                yield event

    def _is_new(self, item: Point | Picture) -> bool:
        if (item.name, item.step) in self._seen:
            return False
        self._seen.add((item.name, item.step))
        if isinstance(item, Picture):
            self.newest[item.name] = item
        return True


def _lines_behind(file: Path, position: int) -> bool:
    if file.stat().st_size <= position:
        return False
    with file.open("rb") as lines:
        lines.seek(position)
        return lines.readline().endswith(b"\n")


def read_spool(folder: StageFolder) -> Iterator[Point | Picture]:
    """Every point and picture of a stage once, in the order in which they were first recorded."""
    for items in SpoolReader(folder).lines():
        yield from items


def _items(folder: StageFolder, event: dict[str, Any]) -> Iterator[Point | Picture]:
    if "image" in event:
        yield Picture(event["image"], event["s"], folder.spool / event["file"])
    for name, value in event.get("m", {}).items():
        yield Point(name, event["s"], value, event["t"])
