"""The published numbers: every value of the paper and of its peers that could be found, cited.

`data/facts.csv` holds one number a row, with the table or figure it is from. Facts only; a
value that could not be found is listed in `data/absent.csv` and never guessed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from analysis.store.requests import RequestError
from gigatok.names import quantity

PAPER = "gigatok"
"""`Fact.work` of the numbers in the paper itself, those it quotes from others included."""


class _Row(BaseModel):
    """A row of a packaged file: unknown columns are refused, an empty cell is None or ""."""

    # Frozen, as the readers below are cached and hand the same rows to everybody.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(_Row):
    """Published number and where it is printed.

    Attributes:
        id: unique; work, place and a running number.
        work: whose paper or README it is in.
        place: the table or figure there.
        params_m: published size of the tokenizer in millions, training-only head included.
        semantic: whether it was trained with semantic regularisation; None where not stated.
        entropy: whether it was trained with entropy loss; None where not stated.
        setting: what else tells the row from its neighbours, as `key=value`s or words.
        step: iteration, for a point of a training curve.
        metric: a name of `gigatok.names.METRICS` where it has one.
        reading: `printed`; `digitised`, read off a picture to within `error`; or `secondary`,
            from a copy or a note and not from the work itself.
        error: largest error of a digitised value, in units of the value.
        source: id of a `Reference`.
        detail: which file of the source.
    """

    id: str
    work: str
    place: str
    tokenizer: str
    variant: Literal["1d", "2d", ""]
    encoder: str
    decoder: str
    quantizer: str
    num_tokens: int | None = Field(gt=0)
    params_m: float | None = Field(gt=0)
    semantic: bool | None
    entropy: bool | None
    generator: str
    generator_params_m: float | None = Field(gt=0)
    setting: str
    step: int | None = Field(ge=0)
    metric: str = Field(min_length=1)
    value: float = Field(allow_inf_nan=False)
    unit: str
    reading: Literal["printed", "digitised", "secondary"]
    error: float | None = Field(gt=0)
    source: str
    detail: str

    @model_validator(mode="before")
    @classmethod
    def _blank_numbers_are_null(cls, row: dict[str, Any]) -> dict[str, Any]:
        # CSV knows no null. An empty text stays a text: only numbers and yes-or-no become null.
        return {k: None if v == "" and k in _NULLABLE else v for k, v in row.items()}

    @model_validator(mode="after")
    def _a_reading_has_an_error(self) -> Fact:
        # A printed number is exact as printed; one read off a picture is worthless without its
        # error.
        if (self.error is not None) != (self.reading == "digitised"):
            raise ValueError("`error` belongs to digitised values, and to all of them")
        return self

    @property
    def printed(self) -> float:
        """Value in the unit in which figures and tables print its metric."""
        # Shares of codes were published as fractions, accuracies in percent.
        factor = quantity(self.metric).factor if self.unit == "fraction" else 1.0
        # .57 x 100 is 56.99999999999999 in binary; six decimals are more than any source prints.
        return round(self.value * factor, 6)

    @property
    def citation(self) -> str:
        """Name where to look it up, such as `arXiv 2504.08736v2, Table 2`."""
        return f"{sources()[self.source].citation}: {self.place}"


# Read off the annotations, so that a new column cannot be forgotten here.
_NULLABLE = {name for name, field in Fact.model_fields.items() if "None" in str(field.annotation)}


class Reference(_Row):
    """Document that facts are from; `url` is empty where none is known."""

    id: str
    citation: str = Field(min_length=1)
    url: str


class Note(_Row):
    """A confound or a trap of the published numbers."""

    id: int
    short: str = Field(min_length=1)
    text: str = Field(min_length=1)


class Absent(_Row):
    """Number that could not be found, and what is known instead."""

    place: str
    what: str
    note: str


class Listing(_Row):
    """A row of a public leaderboard's page of the paper; its value is the leaderboard's."""

    task: str
    dataset: str
    metric: str
    value: float | None
    rank: int
    note: str

    @model_validator(mode="before")
    @classmethod
    def _blank_value_is_null(cls, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"value": row["value"] or None}


R = TypeVar("R", bound=_Row)


def read_rows(kind: type[R], name: str, lines: Iterable[str]) -> list[R]:
    """Validate the rows of a file.

    Raises:
        ValueError: a row does not fit the schema; the message names file and line.
    """
    found = []
    # Line 1 is the head. No cell holds a line break, so that rows and lines count alike.
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            found.append(kind.model_validate(row))
        except ValidationError as error:
            raise ValueError(f"{name}, line {number}: {error}") from error
    return found


@cache
def facts() -> tuple[Fact, ...]:
    """Read every published number, in the order of the file.

    Raises:
        ValueError: the file breaks its schema, repeats an id, or cites an unknown source.
    """
    # All rows are validated at the first reading: the file is edited by hand.
    found = _packaged(Fact, "facts.csv")
    ids = [fact.id for fact in found]
    repeated = sorted({i for i in ids if ids.count(i) > 1})
    # A number without a source must not ship: both checks are made at the first reading.
    unknown = sorted({fact.source for fact in found} - sources().keys())
    if repeated or unknown:
        raise ValueError(f"facts.csv: repeated ids {repeated}, unknown sources {unknown}")
    return tuple(found)


@cache
def sources() -> dict[str, Reference]:
    """Read the sources, by id."""
    return {source.id: source for source in _packaged(Reference, "sources.csv")}


@cache
def notes() -> dict[int, Note]:
    """Read the confounds, by number."""
    return {note.id: note for note in _packaged(Note, "notes.csv")}


@cache
def absent() -> tuple[Absent, ...]:
    """Read what could not be found."""
    return tuple(_packaged(Absent, "absent.csv"))


@cache
def leaderboard() -> tuple[Listing, ...]:
    """Read the leaderboard's rows."""
    return tuple(_packaged(Listing, "leaderboard.csv"))


def select(place: str | None = None, work: str = PAPER, **wanted: Any) -> list[Fact]:
    """Select facts of a work whose columns equal what is wanted, in the order of the file."""
    wanted |= {"work": work} | ({"place": place} if place else {})
    return [f for f in facts() if all(getattr(f, k) == v for k, v in wanted.items())]


def one(place: str, metric: str, **wanted: Any) -> Fact:
    """Select the only fact that fits.

    Raises:
        RequestError: none does, or several do.
    """
    # Never the first of several: a figure would silently show another setting's number.
    found = select(place, metric=metric, **wanted)
    if len(found) != 1:
        raise RequestError(f"{len(found)} published values of {metric} in {place} with {wanted}")
    return found[0]


def origin(fact: Fact) -> dict[str, Any]:
    """Collect the provenance of a published number: its row, citation and address."""
    source = sources()[fact.source]
    kept = fact.model_dump(include=_TRACED)
    # What identifies the number and its source is enough for the JSON beside a figure; sizes and
    # shapes are in the row.
    return kept | {"citation": source.citation, "url": source.url, "file": fact.detail}


_TRACED = {
    *("id", "work", "place", "tokenizer", "variant", "semantic", "entropy", "setting"),
    *("generator", "step", "metric", "value", "unit", "reading", "error"),
}


def short(*numbers: int) -> tuple[str, ...]:
    """Look up confounds, in a sentence each."""
    return tuple(notes()[number].short for number in numbers)


def _packaged(kind: type[R], name: str) -> list[R]:
    text = (files("analysis.paper") / "data" / name).read_text(encoding="utf-8")
    return read_rows(kind, name, text.splitlines())
