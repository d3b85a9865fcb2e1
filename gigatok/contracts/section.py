"""Contract of a section of trials: what sweeps, keys and the schema for editors rely on."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gigatok.config import Config
from gigatok.contracts.base import Check, broken


def broken_promises(settings: type[Config]) -> list[str]:
    """List what is wrong with the keys of a section; empty: it keeps the contract."""
    return broken(CHECKS, settings, f"section {settings.__name__}")


def keys(settings: type[Config]) -> Iterator[str]:
    """Check that there are keys, that others are refused, and that editors can be told of them."""
    if not settings.model_fields:
        yield "it has no keys"
    if settings.model_config.get("extra") != "forbid" or not settings.model_config.get("frozen"):
        yield "it takes unknown keys or can be changed; derive it from gigatok.config.Config as is"
    json.dumps(settings.model_json_schema())


def defaults(settings: type[Config]) -> Iterator[str]:
    """Check that defaults are in no key of a stage, and survive being written."""
    # The built-in sections have required keys, which a scale gives.
    if any(field.is_required() for field in settings.model_fields.values()):
        return
    usual = settings()
    if usual.identity != "{}":
        yield f"its defaults are in the keys of stages, as {usual.identity}; give constant ones"
    if settings.model_validate(json.loads(usual.model_dump_json())) != usual:
        yield "its defaults are others after they were written and read"


CHECKS: tuple[Check, ...] = (keys, defaults)
