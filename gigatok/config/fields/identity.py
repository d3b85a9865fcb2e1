"""The part of a config that keys hash: canonical JSON of what differs from the defaults.

Leaving out defaults is what lets results survive upgrades: a new option that is off changes no
text, and so no key. It has a price. Whoever changes a default, or what a value means, must raise
the version of the stages that read it; `tests/orchestration/plan/golden/defaults.json` holds the
defaults of every stage, and a test fails until the version is raised.

Rules, each with a test in `tests/gigatok/config/fields/test_identity_text.py`:

* A field without a constant default (required, or computed from other fields) is always written.
* Fields marked `RUNTIME` never are, at any depth, nor are those that others make meaningless.
* Numbers that compare equal are written alike, so an `int` field can become a `float` one.
* Of a union of configs, the discriminator is written unless the value is of the default's class,
  so a field of one class can become a union.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gigatok.config.fields.marks import RUNTIME, marked

# Built once: json.dumps makes a new encoder for every call that is not all defaults.
_dumps = json.JSONEncoder(allow_nan=False).encode
_NOTHING = object()
"""Constant of a field without one; no field has this value."""


@dataclass(frozen=True)
class IdentityField:
    """A field that is part of keys.

    Attributes:
        name: in its config.
        default: canonical text of its default; None: it has no constant one.
        constant: the default itself, where it has one.
        default_class: of a default that is a config itself.
        discriminator: the field that tells the configs of a union apart; None: no union.
    """

    name: str
    default: str | None
    default_class: type[BaseModel] | None = None
    discriminator: str | None = None
    constant: Any = _NOTHING


def identity_text(config: BaseModel, unread: frozenset[str] = frozenset()) -> str:
    """Write the fields that set a config apart as a JSON object with sorted names.

    Args:
        config: whose fields to write.
        unread: fields that other fields make meaningless, such as the size of a codebook that
            the quantizer does not have.
    """
    found = []
    # A plain loop: this runs for tens of thousands of stages in a large plan.
    for field in identity_fields(type(config)):
        value = getattr(config, field.name)
        # Most fields hold the very object of their default, whose text need not be written.
        if value is field.constant or field.name in unread:
            continue
        text = value_text(value, field)
        if text != field.default:
            found.append(f'"{field.name}":{text}')
    return "{" + ",".join(found) + "}"


@cache
def identity_fields(kind: type[BaseModel]) -> tuple[IdentityField, ...]:
    """List the fields of a config type that are part of keys, by name."""
    left_out = marked(kind, RUNTIME)
    fields = sorted(kind.model_fields.items())
    return tuple(_identity_field(kind, n, field) for n, field in fields if n not in left_out)


def _identity_field(kind: type[BaseModel], name: str, field: FieldInfo) -> IdentityField:
    discriminator = field.discriminator if isinstance(field.discriminator, str) else None
    members = set(config_classes(field.annotation))
    assert len(members) < 2 or discriminator, (
        f"{kind.__name__}.{name}: a union needs a discriminator"
    )
    found = IdentityField(name, None, None, discriminator)
    # A factory that is given the other fields makes no constant: the value has to be in the key.
    if field.is_required() or field.default_factory_takes_validated_data:
        return found
    default = field.get_default(call_default_factory=True)
    kept = type(default) if isinstance(default, BaseModel) else None
    found = IdentityField(name, None, kept, discriminator)
    return IdentityField(name, value_text(default, found), kept, discriminator, default)


def config_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the config classes that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from config_classes(part)


def value_text(value: Any, field: IdentityField) -> str:
    """Write one value of a field as canonical JSON."""
    if type(value) is int:  # most often a seed, of which every trial may have its own
        return str(value)
    if isinstance(value, BaseModel):
        text: str = value.identity  # type: ignore[attr-defined]
        if field.discriminator is None or type(value) is field.default_class:
            return text
        return f"[{_dumps(getattr(value, field.discriminator))},{text}]"
    if isinstance(value, tuple | list):
        return "[" + ",".join(value_text(item, field) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    assert value is None or isinstance(value, str | int | float), f"no stable form: {value!r}"
    return _dumps(value)
