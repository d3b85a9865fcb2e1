"""What makes two stages the same: config -> canonical JSON -> key.

A key covers the stage's name and version, its own typed config with defaults filled in, the keys
of its inputs and the fingerprints of the data it reads. Fields marked `RUNTIME` in
`gigatok.config` are left out: where and how fast a stage runs never changes what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
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
        parts = [getattr(config, name) for name in _identity_fields(type(config))]
        # Sections are kept alive by `_sections`, so that an id is never used twice.
        known = tuple(id(part) if isinstance(part, Config) else part for part in parts)
        short = (stage, *known, *inputs.values())
        if short not in self._keys:
            data = {p.name: fingerprint(p.name) for p in parts if isinstance(p, SplitConfig)}
            head = {"stage": stage, "version": version, "inputs": inputs, "data": data}
            self._keys[short] = digest(_dumps(head) + self.config_json(config))
        return self._keys[short]

    def config_json(self, config: Config) -> str:
        """Canonical JSON of a config."""
        parts = []
        for name in _identity_fields(type(config)):
            value = getattr(config, name)
            text = self._section(value) if isinstance(value, Config) else _dumps(canonical(value))
            parts.append(f'"{name}":{text}')
        return "{" + ",".join(parts) + "}"

    def _section(self, config: Config) -> str:
        if id(config) not in self._sections:
            self._sections[id(config)] = (config, _dumps(canonical(config)))
        return self._sections[id(config)][1]


def digest(text: str) -> str:
    """The first `KEY_LENGTH` hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


# Built once: json.dumps makes a new encoder for every call that is not all defaults.
_dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
