"""The JSON records in a runs directory: their base, and the one way to read and to append them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.runs.files import cut_torn_line, locked, set_aside

R = TypeVar("R", bound=BaseModel)

UnixTime = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""UNIX seconds before the year 10000: beyond it a damaged record cannot be shown as a date."""

_log = logging.getLogger(__name__)
_reported: set[Path] = set()
"""Files that this process has named as unreadable; each is named once."""


class Record(BaseModel):
    """Base of the JSON files of a runs directory: immutable, refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prediction(Record):
    """What a stage was predicted to need when it was launched; see `costs.cost.Cost`."""

    family: str
    unit_flops: float
    flops: float
    tensor_bytes: int | None
    memory_bytes: int | None
    disk_bytes: int
    seconds: float | None
    low: float | None
    high: float | None
    record: str | None


class UnreadableRecord(ValueError):
    """A record that is there and cannot be read; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}")
        self.path = path


def parse_record(path: Path, kind: type[R]) -> R | None:
    """Read a record that the caller cannot do without; None where there is no such file.

    Raises:
        UnreadableRecord: the file is empty, damaged, of another version, or no file.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise UnreadableRecord(path, _reason(error)) from error
    except OSError as error:
        raise UnreadableRecord(path, error.strerror or repr(error)) from error


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read a record whose loss nothing depends on; None where it is missing or unreadable.

    An unreadable file is named once on stderr, so that nobody takes it for missing.
    """
    try:
        return parse_record(path, kind)
    except UnreadableRecord as error:
        report_unreadable(path, error)
        return None


def read_lines(path: Path, kind: type[R]) -> list[R]:
    """Read a file of one record per line, oldest first; what cannot be read is left out.

    A last line without its newline is one that a killed process did not finish; it is ignored.
    Of other lines that are no records, the first is named on stderr with its number.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        report_unreadable(path, UnreadableRecord(path, error.strerror or repr(error)))
        return []
    finished = content.rpartition(b"\n")[0]
    damaged: list[str] = []
    found = list(_parsed(finished.split(b"\n"), kind, damaged)) if finished else []
    if damaged:
        more = f" (and {len(damaged) - 1} more of its lines)" if len(damaged) > 1 else ""
        report_unreadable(path, f"{path}:{damaged[0]}{more}")
    return found


def _parsed(lines: Iterable[bytes], kind: type[R], damaged: list[str]) -> Iterator[R]:
    """Parse lines; adds number and reason of each that is no record to `damaged`."""
    for number, line in enumerate(lines, start=1):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            damaged.append(f"{number} cannot be read: {_reason(error)}")


def append_lines(path: Path, records: Iterable[Record]) -> None:
    """Add records to a file of one per line; several processes may do so at the same time.

    What is no file in its place is set aside, and a line that a killed process did not finish is
    dropped: the next one would be joined to it.
    """
    text = "".join(json.dumps(record.model_dump(mode="json")) + "\n" for record in records)
    if not text:
        return
    with locked(path.with_name(f".{path.stem}.lock")):
        if path.is_dir():
            set_aside(path)
        with path.open("a", encoding="utf-8") as file:
            cut_torn_line(path)
            file.write(text)


def report_unreadable(path: Path, reason: object) -> None:
    """Name a file on stderr that is left out because it cannot be read; once per process."""
    if path not in _reported:
        _reported.add(path)
        _log.warning("%s; it is left out", reason)


def _reason(error: ValidationError) -> str:
    """Say in one line what is wrong with a record, in words of the file, not of the parser."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return "it is empty or no JSON"
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"'{where}' is unknown here: a newer version of this program may have written it"
    return f"'{where}': {first['msg']}" if where else str(first["msg"])


def to_json(record: Record) -> str:
    """Write a record as JSON; NaN and infinity as Python names them."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=True)
