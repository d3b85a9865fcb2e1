"""Dotted keys of a trial, such as `tokenizer.cnn.channels`, and the types of their values.

Everything here is derived from the types in `gigatok.config`; nothing is listed twice.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import Annotated, Any, TypeVar

from pydantic.fields import FieldInfo

from gigatok.config import FOUND, RUNTIME, SECTIONS, Config, TransformerSize
from gigatok.config.fields.open_union import OneOf
from orchestration.yaml.parts import Part
from orchestration.yaml.source import did_you_mean, listed
from orchestration.yaml.values import ValueType

NEAREST = 6
"""Number of keys that the message about an unknown key lists."""
SIZE_FIELDS = ("width", "layers", "heads")
SEED = "seed"
GENERATOR_SIZE = "generator.size"
TOKENIZER_SIZES = ("tokenizer.encoder", "tokenizer.decoder")
TOKENIZER_VARIANT = "tokenizer.variant"
SUFFIX_2D = "-2d"
"""Suffix of a tokenizer's name for the 2D baseline of the same sizes."""
T = TypeVar("T")


def while_sections_last(make: Callable[[], T]) -> Callable[[], T]:
    """Cache what is made of the sections of a trial, until a plug-in adds one."""
    cached = lru_cache(maxsize=1)(lambda sections: make())
    return wraps(make)(lambda: cached(tuple(SECTIONS.items())))


@dataclass(frozen=True)
class Key:
    """Leaf of the trial's configuration."""

    name: str
    field: FieldInfo

    @property
    def is_size(self) -> bool:
        """True if it holds a transformer size: a name of the scale, or width, layers and heads."""
        return self.field.annotation is TransformerSize

    @property
    def kinds(self) -> Mapping[str, type[Config]]:
        """Configs by name, one of which it holds; empty for all other keys."""
        marks = (mark for mark in self.field.metadata if isinstance(mark, OneOf))
        return next((mark.configs for mark in marks), {})

    @property
    def item_kinds(self) -> Mapping[str, type[Config]]:
        """Configs by name, of which it holds a list; empty for all other keys."""
        item, *_ = (*typing.get_args(self.field.annotation), None)
        marks = (mark for mark in typing.get_args(item) if isinstance(mark, OneOf))
        return next((mark.configs for mark in marks), {})

    @property
    def is_list(self) -> bool:
        """True if one value is itself a list."""
        return not self.is_size and self.schema.get("type") == "array"

    @property
    def is_runtime(self) -> bool:
        """True if it only changes how a stage runs, so that varying it changes no result."""
        return RUNTIME in self.field.metadata

    @property
    def default(self) -> Any:
        """Default as a file would write it."""
        default = self.field.get_default(call_default_factory=True)
        if isinstance(default, Config):
            return default.model_dump(mode="json")
        return list(default) if isinstance(default, tuple) else default

    @cached_property
    def type(self) -> ValueType:
        """Type of one value that is not a size."""
        # With the field, whose bounds the bare annotation lacks. One of several configs is checked
        # by its mark: pydantic takes no strictness beside that of a model.
        bare: Any = Any if self.kinds else self.field.annotation
        return ValueType(Annotated[bare, self.field])

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of one value that is not a size."""
        return self.type.schema

    @property
    def allowed(self) -> str:
        """Description of the allowed values in words."""
        return "a size" if self.is_size else self.type.allowed


def _walk(kind: type[Config], prefix: str) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for name, field in kind.model_fields.items():
        if FOUND in field.metadata:
            continue
        nested: Any = field.annotation
        key = Key(f"{prefix}{name}", field)
        is_config = isinstance(nested, type) and issubclass(nested, Config)
        if is_config and not key.is_size and not key.kinds:
            keys |= _walk(nested, f"{prefix}{name}.")
        else:
            keys[key.name] = key
    return keys


@while_sections_last
def trial_keys() -> dict[str, Key]:
    """Map the name of every leaf that axes, `zip`, `set` and `--set` may name, without `seed`."""
    # The seed, which is in no section, is varied by `seeds`; as an axis it would mix with the
    # settings.
    walks = [_walk(kind, f"{name}.") for name, kind in SECTIONS.items()]
    return {name: key for keys in walks for name, key in keys.items()}


@lru_cache(maxsize=1)
def size_keys() -> dict[str, Key]:
    """Map the parts of a transformer size to their keys."""
    fields = TransformerSize.model_fields
    return {name: Key(name, fields[name]) for name in SIZE_FIELDS}


@while_sections_last
def groups() -> dict[str, list[str]]:
    """Map each inner node of the key tree, such as `tokenizer.cnn`, to the leaves below it."""
    found: dict[str, list[str]] = {}
    for name in trial_keys():
        parts = name.split(".")
        for end in range(1, len(parts)):
            found.setdefault(".".join(parts[:end]), []).append(name)
    return found


def find_key(name: str, part: Part) -> Key | None:
    """Find a key of the trial that a part gives; None after an unknown one was reported."""
    key = trial_keys().get(name)
    if key is None:
        part.report_key(_unknown(name))
    return key


def find_varying(name: str, part: Part) -> Key | None:
    """Find a key that may vary; None after it was reported as unknown or run-time."""
    key = find_key(name, part)
    if key is not None and key.is_runtime:
        text = "changes how a stage runs, not what it computes, so it cannot vary; use `set`"
        part.report_key(text)
        return None
    return key


def report_taken(key: str, part: Part, taken: Mapping[str, Part]) -> None:
    """Report a key that another part of the sweep gives already."""
    if key in taken:
        part.report_key(f"given twice; line {taken[key].line} has it already; keep one")


def _unknown(name: str) -> str:
    """Say why `name` is not a key of the trial, and what to write instead."""
    if name == SEED:
        return "is not set as a key; give the sweep `seeds: [0, 1]` instead"
    if name in groups():
        return f"is a group of keys; name one of them, such as {listed(groups()[name][:3])}"
    parent = name.rpartition(".")[0]
    if parent in trial_keys():
        above = trial_keys()[parent]
        size = "; a size is replaced whole: {width, layers, heads}" * above.is_size
        one_of = "; it is replaced whole: {name, ...}" * bool(above.kinds)
        return f"unknown key; {parent} has no parts{size}{one_of}"
    siblings = groups().get(parent, ())
    # Even far ones (`cutoff=0`): a wrong word helps less than a list of the right ones.
    nearest = difflib.get_close_matches(name, siblings, n=NEAREST, cutoff=0)
    known = f"keys are dotted and begin with {listed(SECTIONS)}, such as tokenizer.encoder"
    if siblings:
        known = f"keys of {parent}, nearest first: {listed(nearest)}"
    more = ", ..." if len(siblings) > NEAREST else ""
    return f"unknown key; {known}{more}{_near_key(name)}"


def _near_key(name: str) -> str:
    """Suggest the nearest key by its whole name, or by its last part if the section is missing."""
    same_end = [key for key in trial_keys() if key.rpartition(".")[2] == name]
    # `lr` is far from `tokenizer.lr` by letters, but surely means such a key.
    return f"; did you mean '{same_end[0]}'?" if same_end else did_you_mean(name, trial_keys())
