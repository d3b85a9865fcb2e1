"""The base of the JSON records in a runs directory, and the one way to read them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

R = TypeVar("R", bound=BaseModel)

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
