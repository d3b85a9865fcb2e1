"""What makes two stages the same: config -> canonical JSON -> key.

A key covers the stage's name and version, its own typed config with defaults filled in, the keys
of its inputs and the fingerprints of the data it reads. Fields marked `RUNTIME` in
`gigatok.config` are left out: where and how fast a stage runs never changes what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

from gigatok.config import Config, SplitConfig

KEY_LENGTH = 16
"""Hex digits of a key: 64 bits, so a million stages collide with probability 3e-8."""


@cache
def _identity_fields(kind: type[Config]) -> tuple[str, ...]:
    def counts(extra: Any) -> bool:
        return not (isinstance(extra, dict) and extra.get("identity") is False)

    fields = kind.model_fields.items()
    return tuple(sorted(name for name, field in fields if counts(field.json_schema_extra)))


def canonical(value: Any) -> Any:
    """`value` as plain JSON data without the fields that are not identity.

    Numbers that compare equal come out equal: a float field given as `1` is already `1.0` after
    validation, so no rounding or normalisation happens here.
    """
    if isinstance(value, Config):
        return {name: canonical(getattr(value, name)) for name in _identity_fields(type(value))}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    assert value is None or isinstance(value, str | int | float), f"no stable form: {value!r}"
    return value


class Keys:
    """Computes keys; remembers the sections and stages it has seen, since trials share most."""

    def __init__(self) -> None:
        self._sections: dict[int, tuple[Config, str]] = {}
        self._keys: dict[tuple[Any, ...], str] = {}

    def stage_key(
        self,
        stage: str,
        version: int,
        config: Config,
        inputs: Mapping[str, str],
        fingerprint: Callable[[str], str],
    ) -> str:
        """The key of a stage; `inputs` maps stage to key, `fingerprint` data name to hash."""
        parts = _parts_of(type(config))(config)
        # Sections are kept alive by `_sections`, so that an id is never used twice.
        known = [id(part) if isinstance(part, Config) else part for part in parts]
        short = (stage, *known, *inputs.values())
        found = self._keys.get(short)
        if found is None:
            splits = (part for part in parts if isinstance(part, SplitConfig))
            data = {str(split.name): fingerprint(split.name) for split in splits}
            # As json.dumps with sorted keys would write it, ten times as fast.
            head = f'{{"data":{_mapping(data)},"inputs":{_mapping(inputs)},'
            head += f'"stage":"{stage}","version":{version}}}'
            found = self._keys[short] = digest(head + self.config_json(config))
        return found

    def config_json(self, config: Config) -> str:
        """Canonical JSON of a config."""
        names = _identity_fields(type(config))
        return _object(names, map(self._text, _parts_of(type(config))(config)))

    def _text(self, value: Any) -> str:
        if type(value) is int:  # seeds, of which every trial may have its own
            return str(value)
        if not isinstance(value, Config):
            return _dumps(canonical(value))
        if id(value) not in self._sections:
            self._sections[id(value)] = (value, _dumps(canonical(value)))
        return self._sections[id(value)][1]


@cache
def _parts_of(kind: type[Config]) -> Callable[[Config], tuple[Any, ...]]:
    """The values of the fields that are identity."""
    names = _identity_fields(kind)
    return attrgetter(*names) if len(names) > 1 else lambda c: tuple(getattr(c, n) for n in names)


def _object(names: Iterable[str], texts: Iterable[str]) -> str:
    pairs = (f'"{name}":{text}' for name, text in zip(names, texts, strict=True))
    return "{" + ",".join(pairs) + "}"


def _mapping(hashes: Mapping[str, str]) -> str:
    """Names and hex digits, which need no escapes."""
    return "{" + ",".join([f'"{name}":"{hashes[name]}"' for name in sorted(hashes)]) + "}"


def digest(text: str) -> str:
    """The first `KEY_LENGTH` hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


# Built once: json.dumps makes a new encoder for every call that is not all defaults.
_dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
