"""The dotted keys of a trial, what each may hold in plain words, and the check of one value.

All of it comes from the types in `gigatok.config`; nothing is listed twice.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gigatok.config import RUNTIME, Config, TransformerSize, TrialConfig
from orchestration.yaml.source import Node, Place, Problem, did_you_mean, listed, show

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
NEAREST = 6
"""How many keys the message about an unknown one lists."""
SIZE_FIELDS = ("width", "layers", "heads")
GENERATOR_SIZE = "generator.size"
TOKENIZER_SIZES = ("tokenizer.encoder", "tokenizer.decoder")
TOKENIZER_VARIANT = "tokenizer.variant"
SUFFIX_2D = "-2d"
"""Behind a tokenizer's name: the baseline of those sizes."""
SECTIONS: dict[str, type[Config]] = {
    name: field.annotation
    for name, field in TrialConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
}
"""Top-level parts of a trial and their types; `seed` is not among them."""


@dataclass(frozen=True)
class Setting:
    """One key's checked value.

    Attributes:
        value: what the config takes; a `TransformerSize` for a size.
        written: what the file or `--set` says.
        place: where it says so.
        where: the key as written there, such as `axes.tokenizer.encoder`.
        rank: who wins and who is blamed; a higher rank overrides a lower one.
    """

    value: Any
    written: Any
    place: Place
    where: str
    rank: int


MAX_WHOLE = 2**63 - 1
"""The largest whole number that tables, databases and Parquet hold; larger ones became null."""

RANK_SCALE, RANK_RECIPE, RANK_SET, RANK_AXIS, RANK_OVERRIDE = range(5)


def words(schema: Mapping[str, Any]) -> str:
    """What a JSON schema of one value allows, in words: `a whole number of at least 1`."""
    if "anyOf" in schema:
        return " or ".join(words(option) for option in schema["anyOf"])
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        return f"one of {listed(map(show, schema['enum']))}"
    kind = schema["type"]
    if kind == "array":
        return f"a list, each item {words(schema['items'])}"
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    return {"boolean": "true or false", "string": "text", "null": "null"}[str(kind)]


def _bounds(schema: Mapping[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    if schema["type"] == "integer" and above is not None:
        low, above = above + 1, None
    high = schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = (("above", above), ("of at least", low), ("at most", high))
    return " and".join(f" {word} {bound}" for word, bound in parts if bound is not None)


@dataclass(frozen=True)
class Key:
    """One leaf of the trial's configuration, such as `tokenizer.cnn.channels`."""

    name: str
    field: FieldInfo

    @property
    def is_size(self) -> bool:
        """Whether it holds a transformer size: a name of the scale, or width, layers, heads."""
        return self.field.annotation is TransformerSize

    @property
    def is_list(self) -> bool:
        """Whether one value is itself a list."""
        return not self.is_size and self.schema.get("type") == "array"

    @property
    def is_runtime(self) -> bool:
        """Changes only how a stage runs, so that varying it varies nothing."""
        return RUNTIME in self.field.metadata

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Strict check of one value: no text for numbers, no booleans for numbers, no NaN."""
        kind: Any = Annotated[self.field.annotation, self.field]
        return TypeAdapter(kind, config=_STRICT)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of one value that is not a size."""
        return self.adapter.json_schema()

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        return "a size" if self.is_size else words(self.schema)

    def problem(self, value: Any) -> str | None:
        """What is wrong with a plain value of a leaf that is not a size; None if nothing is."""
        try:
            checked = self.adapter.validate_python(_integral(value))
        except ValidationError:
            text = f"got {show(value)}; must be {self.allowed}"
            return text + did_you_mean(value, map(str, self.schema.get("enum", ())))
        parts = checked if isinstance(checked, tuple) else (checked,)
        if any(isinstance(part, int) and abs(part) > MAX_WHOLE for part in parts):
            return f"got {show(value)}; must be {self.allowed} and at most {MAX_WHOLE}"
        return None


def _integral(value: Any) -> Any:
    """Lists as tuples, and floats without a fraction as integers: `1e6` steps is a number."""
    if isinstance(value, list):
        return tuple(map(_integral, value))
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _walk(kind: type[Config], prefix: str) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for name, field in kind.model_fields.items():
        nested: Any = field.annotation
        is_config = isinstance(nested, type) and issubclass(nested, Config)
        if is_config and nested is not TransformerSize:
            keys |= _walk(nested, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = Key(f"{prefix}{name}", field)
    return keys


@lru_cache(maxsize=1)
def trial_keys() -> dict[str, Key]:
    """Every leaf that axes, `zip`, `set` and `--set` may name, without `seed`."""
    return {name: key for name, key in _walk(TrialConfig, "").items() if name != "seed"}


@lru_cache(maxsize=1)
def size_keys() -> dict[str, Key]:
    """The parts of a transformer size."""
    fields = TransformerSize.model_fields
    return {name: Key(name, fields[name]) for name in SIZE_FIELDS}


@lru_cache(maxsize=1)
def groups() -> dict[str, list[str]]:
    """Each inner node of the key tree, such as `tokenizer.cnn`, and the leaves below it."""
    found: dict[str, list[str]] = {}
    for name in trial_keys():
        parts = name.split(".")
        for end in range(1, len(parts)):
            found.setdefault(".".join(parts[:end]), []).append(name)
    return found


def unknown_key(name: str, seed_hint: str) -> str:
    """Why `name` is not a key of the trial, and what to write instead."""
    if name == "seed":
        return seed_hint
    if name in groups():
        below = groups()[name]
        return f"is a group of keys; name one of them, such as {listed(below[:3])}"
    parent = name.rpartition(".")[0]
    if parent in trial_keys():
        hint = "; a size is replaced whole: {width, layers, heads}"
        return f"unknown key; {parent} has no parts" + (
            hint if trial_keys()[parent].is_size else ""
        )
    siblings = groups().get(parent, ())
    nearest = difflib.get_close_matches(name, siblings, n=NEAREST, cutoff=0)
    known = f"keys of {parent}, nearest first: {listed(nearest)}" if siblings else _sections()
    more = ", ..." if len(siblings) > NEAREST else ""
    return f"unknown key; {known}{more}{_near_key(name)}"


def _sections() -> str:
    return f"keys are dotted and begin with {listed(SECTIONS)}, such as tokenizer.encoder"


def _near_key(name: str) -> str:
    """The nearest key by its whole name, or by its last part when the section was left out."""
    whole = did_you_mean(name, trial_keys())
    last = name.rpartition(".")[2]
    same_end = [key for key in trial_keys() if key.rpartition(".")[2] == last]
    return f"; did you mean '{same_end[0]}'?" if same_end and "." not in name else whole


Sizes = Mapping[str, TransformerSize]


class Checker:
    """Checks values against their keys; knows the size names of one scale.

    Args:
        problems: receives everything that is wrong.
        scale: name of the scale, for messages.
        sizes: tokenizer sizes by name; None when the scale could not be read.
        generator_sizes: generator sizes by name.
    """

    def __init__(
        self,
        problems: list[Problem],
        scale: str,
        sizes: Sizes | None,
        generator_sizes: Sizes | None,
    ) -> None:
        self.problems = problems
        self.scale = scale
        self.sizes = sizes
        self.generator_sizes = generator_sizes

    def setting(self, name: str, node: Node, where: str, rank: int) -> Setting | None:
        """The checked value of key `name`; None after reporting a problem."""
        key = trial_keys().get(name)
        if key is None:
            hint = "is not set as a key; give the sweep `seeds: [0, 1]` instead"
            self.problems.append(Problem(node.key_place, where, unknown_key(name, hint)))
            return None
        written = node.plain()
        if key.is_size:
            value: Any = self._size(name, node, where)
            return None if value is None else Setting(value, written, node.place, where, rank)
        text = key.problem(written)
        if text is not None:
            self.problems.append(Problem(node.place, where, text))
            return None
        value = key.adapter.validate_python(_integral(written))
        return Setting(value, written, node.place, where, rank)

    def _size(self, name: str, node: Node, where: str) -> TransformerSize | None:
        if isinstance(node.value, dict):
            return read_size("", node, where, self.problems)
        sizes = self.generator_sizes if name == GENERATOR_SIZE else self.sizes
        if sizes is None:
            return None
        if isinstance(node.value, str) and node.value in sizes:
            return sizes[node.value]
        kind = "generator sizes" if name == GENERATOR_SIZE else "sizes"
        text = f"got {show(node.plain())}; {kind} of scale {self.scale}: {listed(sizes)}"
        text += ", or a mapping {width, layers, heads}" + did_you_mean(node.plain(), sizes)
        self.problems.append(Problem(node.place, where, text))
        return None


def read_size(
    name: str, node: Node, where: str, problems: list[Problem]
) -> TransformerSize | None:
    """A size from its mapping {width, layers, heads}; None after reporting problems."""
    before = len(problems)
    parts = node.value
    if not isinstance(parts, dict):
        text = f"got {show(node.plain())}; must be a mapping {{width, layers, heads}}"
        problems.append(Problem(node.place, where, text))
        return None
    for key, item in parts.items():
        if key not in size_keys():
            text = f"unknown key; a size has {listed(SIZE_FIELDS)}{did_you_mean(key, SIZE_FIELDS)}"
            problems.append(Problem(item.key_place, f"{where}.{key}", text))
        elif wrong := size_keys()[key].problem(item.plain()):
            problems.append(Problem(item.place, f"{where}.{key}", wrong))
    for key in SIZE_FIELDS:
        if key not in parts:
            text = f"missing; must be {size_keys()[key].allowed}"
            problems.append(Problem(node.place, f"{where}.{key}", text))
    if len(problems) > before:
        return None
    return _checked_size(name, node, where, problems)


def _checked_size(
    name: str, node: Node, where: str, problems: list[Problem]
) -> TransformerSize | None:
    try:
        return TransformerSize(name=name, **{k: int(v) for k, v in node.plain().items()})
    except ValidationError as error:
        for one in error.errors():
            problems.append(Problem(node.place, where, str(one["ctx"]["error"])))
        return None
