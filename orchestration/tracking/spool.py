"""Spool: metrics and pictures of a stage, first kept on disk as one JSON line per event.

Each attempt has a file of its own. The writer is the `Tracker` that a worker passes to its stage.
The reader yields every point once: an attempt that resumes from a checkpoint logs the steps after
it again, and the first record of a (metric, step) counts. A line that cannot be read costs that
line only: it is skipped, and the reader reports it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gigatok.files import durable
from orchestration.runs.files import cut_torn_line
from orchestration.runs.records import report_unreadable
from orchestration.runs.state import StageFolder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MetricPoint:
    """Point of a curve; `time` is UNIX milliseconds and never changes once written."""

    name: str
    step: int
    value: float
    time: int


@dataclass(frozen=True)
class LoggedPicture:
    """Picture: a PNG file in the spool folder; `time` is UNIX milliseconds."""

    name: str
    step: int
    file: Path
    time: int

    def content(self) -> bytes | None:
        """Read the file; None if it is gone, which is reported once."""
        try:
            return self.file.read_bytes()
        except OSError as error:
            report_unreadable(self.file, f"{self.file} cannot be read: {error.strerror}")
            return None


@dataclass(frozen=True)
class Line:
    """Line of a spool: its new points and pictures, and the reason if some cannot be read."""

    items: tuple[MetricPoint | LoggedPicture, ...]
    problem: str = ""
    """File, line and reason; empty if all of it was read."""


class _Event(BaseModel):
    """Line as it is written; numbers must fit MLflow's 64 bits."""

    # Short keys: every step of every stage writes a line, which repeats them.
    model_config = ConfigDict(strict=True)

    t: int = Field(ge=0, lt=2**63)
    s: int = Field(ge=-(2**63), lt=2**63)
    m: dict[str, Any] = Field(default_factory=dict)
    """Values are checked one by one: a bad one does not cost the others of its step."""
    image: str | None = None
    file: str = ""


class SpoolWriter:
    """Tracker (`gigatok.runtime.tracker.Tracker`) that appends to a stage's spool."""

    def __init__(
        self,
        folder: StageFolder,
        attempt: int,
        on_progress: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._folder = folder.spool
        self._on_progress = on_progress
        # Padded: sorted by name, the files are in the order of attempts.
        path = folder.spool / f"{attempt:03d}.jsonl"
        if path.exists():  # A power cut took the record of an attempt that had this number.
            cut_torn_line(path)
        # Line-buffered: a killed process loses at most the line it was writing.
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Append one point per key."""
        self._write({"s": step, "m": {key: float(value) for key, value in values.items()}})

    def image(self, name: str, image: Image, step: int) -> None:
        """Write a PNG, then its line."""
        from PIL import Image as PillowImage

        # Padded: sorted by name, pictures are in the order of steps.
        file = self._folder / f"{name}-{step:08d}.png"
        # Renamed when whole, and before its line: a line never names a file that is cut short.
        temporary = file.with_suffix(".tmp")
        PillowImage.fromarray(image).save(temporary, format="png")
        durable.sync(temporary)
        temporary.replace(file)
        self._write({"s": step, "image": name, "file": file.name})

    def progress(self, done: int, total: int, unit: str, **values: float) -> None:
        """Pass the progress to the heartbeat."""
        self._on_progress({"done": done, "total": total, "unit": unit, **values})

    def sync(self) -> None:
        """Make everything durable, the names of pictures included."""
        self._file.flush()
        # Line buffering ends in the kernel's cache, which a power cut empties.
        os.fsync(self._file.fileno())
        durable.sync(self._folder)

    def close(self) -> None:
        """Make everything durable, and close the file."""
        self.sync()
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        # UNIX milliseconds, as in MLflow.
        self._file.write(json.dumps({"t": int(time.time() * 1000), **event}) + "\n")


class SpoolReader:
    """Reader of a stage's spool while it grows; it knows what it has already yielded."""

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self._seen: set[tuple[str, int]] = set()
        self._counts: dict[str, int] = {}
        """Spool file -> lines read."""
        self.positions: dict[str, int] = {}
        """Spool file -> bytes read."""
        self.newest: dict[str, LoggedPicture] = {}
        """Last picture of each name so far."""

    def lines(self, stop: Mapping[str, int] | None = None) -> Iterator[Line]:
        """Read the unread lines; a line counts as read once it is yielded.

        Args:
            stop: spool file -> byte up to which it is read; None: to its last complete line.
        """
        for name, file in _open_files(self._folder):
            for text in self._unread(name, file, None if stop is None else stop.get(name, 0)):
                items, problem = _parse(text, self._folder.spool)
                where = f"{self._folder.spool / name} line {self._counts[name]}"
                new = tuple(item for item in items if self._is_new(item))
                yield Line(new, f"{where}: {problem}" if problem else "")

    def skip_to(self, positions: Mapping[str, int]) -> None:
        """Mark everything before these positions as read."""
        # Read and not only skipped: `_seen` must hold these points, or a resumed attempt would
        # send them a second time.
        for _ in self.lines(stop=positions):
            pass

    def has_more(self, positions: Mapping[str, int]) -> bool:
        """Tell whether there are complete lines behind these positions."""
        return any(
            _lines_behind(file, positions.get(name, 0)) for name, file in _open_files(self._folder)
        )

    def _unread(self, name: str, file: BinaryIO, end: int | None) -> Iterator[bytes]:
        position = self.positions.get(name, 0)
        file.seek(position)
        while end is None or position < end:
            line = file.readline()
            position += len(line)
            # A line without its end is still being written, or was when its worker was killed.
            if not line.endswith(b"\n") or (end is not None and position > end):
                return
            # Before the yield: the line counts as read even if its reader stops there.
            self.positions[name] = position
            self._counts[name] = self._counts.get(name, 0) + 1
            yield line

    def _is_new(self, item: MetricPoint | LoggedPicture) -> bool:
        if (item.name, item.step) in self._seen:
            return False
        # The first record counts: a point that was sent never changes.
        self._seen.add((item.name, item.step))
        if isinstance(item, LoggedPicture):
            self.newest[item.name] = item
        return True


def read_spool(folder: StageFolder) -> Iterator[MetricPoint | LoggedPicture]:
    """Yield every point and picture of a stage once, in the order of their first record."""
    for line in SpoolReader(folder).lines():
        yield from line.items


def make_durable(folder: StageFolder, positions: Mapping[str, int]) -> dict[str, int]:
    """Flush a spool to disk as far as it is written.

    The reader does this, so that training never waits for a disk. On a file system shared by
    hosts, anything that the reader sees has left the writer's memory already.

    Args:
        folder: the stage's folder.
        positions: spool file -> bytes that are durable already.

    Returns:
        Spool file -> bytes that survive a power cut.
    """
    ends = {}
    for name, file in _open_files(folder):
        # The size is taken before the flush: what is written meanwhile is not promised.
        ends[name] = os.fstat(file.fileno()).st_size
        if ends[name] > positions.get(name, 0):
            os.fsync(file.fileno())
    if not ends.keys() <= positions.keys():
        # A new file is only durable once its name in the folder is.
        durable.sync(folder.spool)
    return ends


def _open_files(folder: StageFolder) -> Iterator[tuple[str, BinaryIO]]:
    """Open the spool's files in the order of attempts; report a file that cannot be opened."""
    for path in sorted(folder.spool.glob("*.jsonl")):
        try:
            file = path.open("rb")
        except OSError as error:
            report_unreadable(path, f"{path} cannot be read: {error.strerror}")
            continue
        with file:
            yield path.name, file


def _lines_behind(file: BinaryIO, position: int) -> bool:
    if os.fstat(file.fileno()).st_size <= position:
        return False
    file.seek(position)
    return file.readline().endswith(b"\n")


def _parse(text: bytes, spool: Path) -> tuple[list[MetricPoint | LoggedPicture], str]:
    """Read one line: its usable items, and the reason if some are not; else an empty text."""
    try:
        event = _Event.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        if found["type"] == "json_invalid":
            return [], "no JSON"
        return [], f"'{'.'.join(map(str, found['loc']))}': {found['msg']}"
    items: list[MetricPoint | LoggedPicture] = []
    bad = []
    for name, value in event.m.items():
        number = _number(value)
        if number is None:
            bad.append(name)
        else:
            items.append(MetricPoint(name, event.s, number, event.t))
    if event.image is not None:
        # The name of a file beside this one, never a path to elsewhere.
        if event.file != Path(event.file).name or not event.file:
            return items, f"'{event.file}' is no file of the spool"
        items.append(LoggedPicture(event.image, event.s, spool / event.file, event.t))
    return items, f"no number that MLflow can keep: {', '.join(bad)}" if bad else ""


def _number(value: object) -> float | None:
    """Convert a value to the double that MLflow keeps; None if it is not a number.

    NaN is kept as such, and MLflow keeps an infinite value as the largest double.
    """
    # A bool is an `int` in Python, but `true` in a spool is damage.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # An integer beyond the range of a double.
        return None
