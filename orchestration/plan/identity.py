"""The identity of a stage: config -> canonical JSON -> key.

A key covers the stage's name and version, what sets its config apart from the defaults
(`gigatok.config.fields.identity`), the keys of its inputs, the fingerprints of the data it reads,
and the identities of the plug-ins that it is made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from gigatok.config import Config, SplitConfig
from gigatok.config.fields.identity import config_classes, identity_fields
from gigatok.config.fields.open_name import NameOf
from gigatok.config.kinds.data_sets import find_data_set
from gigatok.plugins import LOADED, Plugin, owner, owner_of
from gigatok.stages import Stage

KEY_LENGTH = 16
"""Hex digits of a key: 64 bits, so a million stages collide with probability 3e-8."""


def canonical(value: Any) -> Any:
    """Convert a config, or a value in one, to plain JSON data, defaults included.

    Fields that are not identity are left out. A float field given as `1` is already `1.0` after
    validation, so numbers that compare equal come out equal.
    """
    if isinstance(value, Config):
        # Without the fields marked `RUNTIME`, which do not change what a stage computes.
        names = (field.name for field in identity_fields(type(value)))
        return {name: canonical(getattr(value, name)) for name in names}
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    assert value is None or isinstance(value, str | int | float), f"no stable form: {value!r}"
    return value


class StageKeys:
    """Keys of all stages of one kind and config, which differ in their inputs.

    Args:
        stage: with its name and version.
        config: what it reads of a trial.
        needs: names of the stages whose outputs it reads, sorted.
    """

    def __init__(self, stage: Stage, config: Config, needs: Sequence[str]) -> None:
        self.config = config
        self._text = _key_text(stage, config, needs)
        self._known: dict[tuple[str, ...], str] = {}

    def key(self, inputs: tuple[str, ...]) -> str:
        """Compute a key by the keys of the inputs, in the order of their names."""
        found = self._known.get(inputs)
        if found is None:
            found = self._known[inputs] = digest(self._text % inputs)
        return found


def _key_text(stage: Stage, config: Config, needs: Sequence[str]) -> str:
    """Write what the key of a stage hashes, with `%s` for the keys of its inputs."""
    splits = [getattr(config, name).name for name in _splits(type(config))]
    # Once for a plan: the data do not change while it is made.
    known = {split: find_data_set(split).fingerprint for split in splits}
    # A user's own images have theirs in the config of the split.
    data = {name: fingerprint for name, fingerprint in known.items() if fingerprint}
    # As json.dumps with sorted keys would write it, ten times as fast.
    text = f'"stage":"{stage.name}","version":{stage.version}}}'
    # Only where there are any: stages of this program keep their keys.
    if used := plugins_of(stage, config):
        text = f'"plugins":{json.dumps([plugin.identity for plugin in used])},{text}'
    head, tail = f'{{"data":{_mapping(data)},"inputs":', f",{text}{config.identity}"
    inputs = _mapping(dict.fromkeys(needs, "%s"))
    return head.replace("%", "%%") + inputs + tail.replace("%", "%%")


def plugins_of(stage: Stage, config: Config) -> tuple[Plugin, ...]:
    """Find the plug-ins that a stage touches, by name: its own code, its settings, its data."""
    if not LOADED:
        return ()
    found = [owner_of("stage", stage.name), *_owners(config)]
    # By content, so that the name by which a sweep calls a file is in no key.
    return tuple(sorted({p for p in found if p is not None}, key=lambda p: p.identity))


def _owners(config: Config) -> Iterator[Plugin | None]:
    """Yield the plug-ins of a config's class, of what its fields name, and of its sections."""
    yield owner(type(config).__module__)
    for name, kind in _names(type(config)):
        # Of a family of teachers, such as `hf:REPO`, the name ends at the colon.
        yield owner_of(kind, getattr(config, name).partition(":")[0])
    for name in type(config).model_fields:
        value = getattr(config, name)
        for section in value if isinstance(value, tuple) else (value,):
            if isinstance(section, Config):
                yield from _owners(section)


@cache
def _names(kind: type[Config]) -> tuple[tuple[str, str], ...]:
    """List the fields of a config that name an entry of a registry, with what the entry is."""
    fields = kind.model_fields.items()
    return tuple(
        (name, mark.kind)
        for name, field in fields
        for mark in field.metadata
        if isinstance(mark, NameOf)
    )


@cache
def _splits(kind: type[Config]) -> tuple[str, ...]:
    """List the fields of a config that name a part of a data set."""
    fields = kind.model_fields.items()
    return tuple(name for name, field in fields if SplitConfig in config_classes(field.annotation))


def _mapping(hashes: Mapping[str, str]) -> str:
    """Write names and hex digits, which need no escapes."""
    return "{" + ",".join([f'"{name}":"{text}"' for name, text in sorted(hashes.items())]) + "}"


def digest(text: str) -> str:
    """Hash a text: the first `KEY_LENGTH` hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
