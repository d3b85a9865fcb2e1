"""Marks on the fields of configs: facts that would otherwise be lists of names elsewhere.

A mark stands in the annotation, `lr: Annotated[PositiveFloat, SAME_COST]`; pydantic keeps it and
does nothing with it.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import cache

from pydantic import BaseModel


class FieldMark(Enum):
    """A fact about a field."""

    RUNTIME = auto()
    """Changes where or how fast a stage runs, not what it computes: not part of its key."""
    SAME_COST = auto()
    """Changes neither FLOPs nor memory, disk or time."""
    SAME_FLOPS = auto()
    """Changes memory, disk or time, but no FLOPs."""
    COMPUTES = auto()
    """Says what a model's weights compute; without it they mean nothing."""
    TRAINING_ONLY = auto()
    """Shapes what the weights hold for training alone, such as the semantic head."""
    FOUND = auto()
    """Found out when a trial is planned, and recorded: no key that a user can set."""


RUNTIME, SAME_COST, SAME_FLOPS = FieldMark.RUNTIME, FieldMark.SAME_COST, FieldMark.SAME_FLOPS
COMPUTES, TRAINING_ONLY = FieldMark.COMPUTES, FieldMark.TRAINING_ONLY
FOUND = FieldMark.FOUND


@cache
def marked(kind: type[BaseModel], *marks: FieldMark) -> tuple[str, ...]:
    """List the fields of a config type that have one of these marks, in their order."""
    wanted = set(marks)
    fields = kind.model_fields.items()
    return tuple(name for name, field in fields if wanted.intersection(_marks(field.metadata)))


def _marks(metadata: list[object]) -> list[FieldMark]:
    return [item for item in metadata if isinstance(item, FieldMark)]
