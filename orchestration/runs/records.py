"""JSON records in a runs directory: their base class, and how to read and append them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestration.runs.files import cut_torn_line, locked, set_aside

R = TypeVar("R", bound=BaseModel)

_log = logging.getLogger(__name__)
_reported: set[Path] = set()
"""Files that this process has reported as unreadable; each is reported once."""


class Record(BaseModel):
    """Base of the JSON files of a runs directory: immutable, refuses unknown keys."""

    # Unknown keys are refused, so that an older version never drops what a newer one wrote. As
    # with configs, validators are built with the first object: a command needs few of thirty.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Prediction(Record):
    """Predicted needs of a stage at launch: FLOPs, bytes and seconds; see `costs.cost.Cost`."""

    family: str
    unit_flops: float | None
    flops: float | None
    tensor_bytes: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    seconds: float | None
    low: float | None
    high: float | None
    record: str | None


class UsedPlugin(Record):
    """Plug-in by name and identity; see `orchestration.runs.used_plugins`.

    Attributes:
        copied: where its code lies below the runs directory; None: it is installed.
    """

    name: str
    identity: str
    copied: str | None = None


class UnreadableRecord(ValueError):
    """Record that exists but cannot be read; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}")
        self.path = path


def parse_record(path: Path, kind: type[R]) -> R | None:
    """Read a record that the caller cannot do without; None if there is no such file.

    Raises:
        UnreadableRecord: the file is empty, damaged, of another version, or not a file.
    """
    return parse_with(path, kind.model_validate_json)


def parse_with(path: Path, parse: Callable[[bytes], R]) -> R | None:
    """Read a record in a format of its own; None where there is no such file.

    Args:
        path: the file.
        parse: makes the record of the file's content, or raises ValueError.

    Raises:
        UnreadableRecord: the file cannot be read or parsed.
    """
    try:
        return parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise UnreadableRecord(path, _reason(error)) from error
    except ValueError as error:
        raise UnreadableRecord(path, str(error)) from error
    except OSError as error:
        raise UnreadableRecord(path, error.strerror or repr(error)) from error


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read a record that can be missed; None if it is missing or unreadable.

    An unreadable file is reported once on stderr, so that nobody takes it for missing.
    """
    try:
        return parse_record(path, kind)
    except UnreadableRecord as error:
        report_unreadable(path, error)
        return None


def read_lines(path: Path, kind: type[R]) -> list[R]:
    """Read a file of one record per line, oldest first, and leave out lines that are damaged.

    A last line without a newline was left by a killed process and is ignored. Of the other damaged
    lines, the first is reported on stderr with its number.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        report_unreadable(path, UnreadableRecord(path, error.strerror or repr(error)))
        return []
    # Without the text after the last newline: its writer may be at work on that line right now.
    finished = content.rpartition(b"\n")[0]
    damaged: list[str] = []
    found = list(_parsed(finished.split(b"\n"), kind, damaged)) if finished else []
    if damaged:
        more = f" (and {len(damaged) - 1} more of its lines)" if len(damaged) > 1 else ""
        report_unreadable(path, f"{path}:{damaged[0]}{more}")
    return found


def _parsed(lines: Iterable[bytes], kind: type[R], damaged: list[str]) -> Iterator[R]:
    """Parse lines; add the number and the reason of each damaged one to `damaged`."""
    for number, line in enumerate(lines, start=1):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            damaged.append(f"{number} cannot be read: {_reason(error)}")


def append_lines(path: Path, records: Iterable[Record]) -> None:
    """Append records to a file of one record per line; several processes may do so at once.

    Anything but a file in its place is set aside. A line that a killed process left unfinished is
    dropped: the next one would be joined to it.
    """
    text = "".join(json.dumps(record.model_dump(mode="json")) + "\n" for record in records)
    if not text:
        return
    with locked(path.with_name(f".{path.stem}.lock")):
        if path.is_dir():
            set_aside(path)
        with path.open("a", encoding="utf-8") as file:
            # Under the lock no writer is at work, so a line without an end can only be a dead
            # one's.
            cut_torn_line(path)
            file.write(text)


def report_unreadable(path: Path, reason: object) -> None:
    """Report on stderr, once per process, that a file is left out because it cannot be read."""
    if path not in _reported:
        _reported.add(path)
        _log.warning("%s; it is left out", reason)


def _reason(error: ValidationError) -> str:
    """Say in one line what is wrong with a record, in words of the file, not of the parser."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return "it is empty or no JSON"
    where = ".".join(str(part) for part in first["loc"])
    # The likely cause differs from damage: the user should update, not delete the file.
    if first["type"] == "extra_forbidden":
        return f"'{where}' is unknown here: a newer version of this program may have written it"
    return f"'{where}': {first['msg']}" if where else str(first["msg"])


def to_json(record: Record) -> str:
    """Write a record as JSON; NaN and infinity are written as Python names them."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=True)
