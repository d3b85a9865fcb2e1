"""Sections of a trial as a stage reads them: without the settings that do not matter to it.

The key of a stage hashes its config. A setting that the stage ignores must not be in it: else
trials that differ in that setting alone would not share the stage.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar, cast

from gigatok.config import Config, marked
from gigatok.config.fields.marks import FieldMark

C = TypeVar("C", bound=Config)

# Thousands of trials share few sections. Cached, they share one object as well, which planning
# hashes once.
_SECTIONS = 4096


def with_fixed(section: C, **values: Any) -> C:
    """Copy a section with some fields at the same values in all trials."""
    return cast(C, _with_fixed(section, tuple(values.items())))


@lru_cache(_SECTIONS)
def _with_fixed(section: Config, values: tuple[tuple[str, Any], ...]) -> Config:
    return section.model_copy(update=dict(values))


def with_marked(section: Config, kind: type[C], *marks: FieldMark) -> C:
    """Keep the fields of a kind that have one of these marks; all others take their defaults."""
    return cast(C, _with_marked(section, kind, marks))


@lru_cache(_SECTIONS)
def _with_marked(section: Config, kind: type[Config], marks: tuple[FieldMark, ...]) -> Config:
    # Not `model_copy`: a section that is trained has a larger type, whose settings must go.
    return kind(**{name: getattr(section, name) for name in marked(kind, *marks)})
