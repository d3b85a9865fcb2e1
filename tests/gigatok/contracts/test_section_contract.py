"""The built-in sections of trials keep the contract, and it tells what is wrong with one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from pydantic import ConfigDict, Field

from gigatok.config import Config, TrialConfig
from gigatok.contracts.section import broken_promises


def sections() -> Iterator[type[Config]]:
    """List the classes of a trial's sections."""
    for field in TrialConfig.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            yield field.annotation


@pytest.mark.parametrize("settings", list(sections()), ids=lambda kind: kind.__name__)
def test_the_built_in_sections_keep_it(settings: type[Config]) -> None:
    assert broken_promises(settings) == []


class Empty(Config):
    pass


class Lax(Config):
    model_config = ConfigDict(extra="allow")

    gamma: float = 1.0


count = itertools.count()


class Changing(Config):
    gamma: int = Field(default_factory=lambda: next(count))


@pytest.mark.parametrize(
    ("settings", "text"),
    [(Empty, "it has no keys"), (Lax, "unknown keys"), (Changing, "defaults are in the keys")],
)
def test_what_is_wrong_is_said(settings: type[Config], text: str) -> None:
    found = broken_promises(settings)
    assert any(text in line for line in found), found
    assert all(line.startswith(f"section {settings.__name__}: ") for line in found)
