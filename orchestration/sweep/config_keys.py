"""Dotted keys of a trial: what each may hold in plain words, and the check of one value.

Everything here is derived from the types in `gigatok.config`; nothing is listed twice.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gigatok.config import RUNTIME, Config, TransformerSize, TrialConfig
from gigatok.config.open_union import OneOf
from orchestration.yaml.source import Node, Place, Problem, did_you_mean, listed, show

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
NEAREST = 6
"""Number of keys that the message about an unknown key lists."""
SIZE_FIELDS = ("width", "layers", "heads")
GENERATOR_SIZE = "generator.size"
TOKENIZER_SIZES = ("tokenizer.encoder", "tokenizer.decoder")
TOKENIZER_VARIANT = "tokenizer.variant"
SUFFIX_2D = "-2d"
"""Suffix of a tokenizer's name for the 2D baseline of the same sizes."""
SECTIONS: dict[str, type[Config]] = {
    name: field.annotation
    for name, field in TrialConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
}
"""Top-level parts of a trial and their types; `seed` is not among them."""


@dataclass(frozen=True)
class Setting:
    """Checked value of one key.

    Attributes:
        value: the value as the config takes it; a `TransformerSize` for a size.
        written: the value as the file or `--set` writes it.
        place: where it is written.
        where: the key as written there, such as `axes.tokenizer.encoder`.
        rank: precedence; a higher rank overrides a lower one, and is blamed before it.
    """

    value: Any
    written: Any
    place: Place
    where: str
    rank: int


MAX_WHOLE = 2**63 - 1
"""Largest whole number that tables, databases and Parquet hold; larger ones became null."""

# The order is the precedence: a scale gives way to all others, and `--set` to none.
RANK_SCALE, RANK_RECIPE, RANK_SET, RANK_AXIS, RANK_OVERRIDE = range(5)


def words(schema: Mapping[str, Any]) -> str:
    """Describe what the JSON schema of one value allows: `a whole number of at least 1`."""
    if "anyOf" in schema:
        return " or ".join(words(option) for option in schema["anyOf"])
    if "properties" in schema:
        return f"{{{', '.join(map(_part, schema['properties'].items()))}}}"
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


def _part(item: tuple[str, Mapping[str, Any]]) -> str:
    """Write the part of a mapping: with its value, where only one is allowed."""
    name, schema = item
    return f"{name}: {schema['const']}" if "const" in schema else name


def _bounds(schema: Mapping[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    # For whole numbers "above 0" reads better as "of at least 1".
    if schema["type"] == "integer" and above is not None:
        low, above = above + 1, None
    high = schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = (("above", above), ("of at least", low), ("at most", high))
    return " and".join(f" {word} {bound}" for word, bound in parts if bound is not None)


@dataclass(frozen=True)
class Key:
    """Leaf of the trial's configuration, such as `tokenizer.cnn.channels`."""

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
        return next((mark.kinds() for mark in marks), {})

    @property
    def is_list(self) -> bool:
        """True if one value is itself a list."""
        return not self.is_size and self.schema.get("type") == "array"

    @property
    def default(self) -> Any:
        """Default as a file would write it."""
        return _written(self.field.get_default(call_default_factory=True))

    @property
    def is_runtime(self) -> bool:
        """True if it only changes how a stage runs, so that varying it changes no result."""
        return RUNTIME in self.field.metadata

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Strict check of one value: no text for numbers, no booleans for numbers, no NaN."""
        # With the field, whose bounds the bare annotation lacks.
        kind: Any = Annotated[self.field.annotation, self.field]
        # One of several configs is a model, which is strict or not by itself.
        return TypeAdapter(kind, config=None if self.kinds else _STRICT)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of one value that is not a size."""
        return self.adapter.json_schema()

    @property
    def allowed(self) -> str:
        """Description of the allowed values in words."""
        return "a size" if self.is_size else words(self.schema)

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a plain value of a leaf that is not a size; None: nothing."""
        try:
            checked = self.adapter.validate_python(_integral(value))
        except ValidationError:
            text = f"got {show(value)}; must be {self.allowed}"
            return text + did_you_mean(value, map(str, self.schema.get("enum", ())))
        # A list is checked item by item.
        parts = checked if isinstance(checked, tuple) else (checked,)
        if any(isinstance(part, int) and abs(part) > MAX_WHOLE for part in parts):
            return f"got {show(value)}; must be {self.allowed} and at most {MAX_WHOLE}"
        return None


def _written(value: Any) -> Any:
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    return [_written(item) for item in value] if isinstance(value, tuple) else value


def _integral(value: Any) -> Any:
    """Convert lists to tuples, and floats without a fraction to integers, such as `1e6`."""
    if isinstance(value, list):
        return tuple(map(_integral, value))
    # Only finite numbers: `is_integer` is no question to ask of NaN.
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _walk(kind: type[Config], prefix: str) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for name, field in kind.model_fields.items():
        nested: Any = field.annotation
        key = Key(f"{prefix}{name}", field)
        is_config = isinstance(nested, type) and issubclass(nested, Config)
        if is_config and not key.is_size and not key.kinds:
            keys |= _walk(nested, f"{prefix}{name}.")
        else:
            keys[key.name] = key
    return keys


@lru_cache(maxsize=1)
def trial_keys() -> dict[str, Key]:
    """Map the name of every leaf that axes, `zip`, `set` and `--set` may name, without `seed`."""
    # The seed is varied by `seeds`; as an axis it would mix with the settings.
    return {name: key for name, key in _walk(TrialConfig, "").items() if name != "seed"}


@lru_cache(maxsize=1)
def size_keys() -> dict[str, Key]:
    """Map the parts of a transformer size to their keys."""
    fields = TransformerSize.model_fields
    return {name: Key(name, fields[name]) for name in SIZE_FIELDS}


@lru_cache(maxsize=1)
def groups() -> dict[str, list[str]]:
    """Map each inner node of the key tree, such as `tokenizer.cnn`, to the leaves below it."""
    found: dict[str, list[str]] = {}
    for name in trial_keys():
        parts = name.split(".")
        for end in range(1, len(parts)):
            found.setdefault(".".join(parts[:end]), []).append(name)
    return found


def unknown_key(name: str, seed_hint: str) -> str:
    """Say why `name` is not a key of the trial, and what to write instead."""
    if name == "seed":
        return seed_hint
    if name in groups():
        below = groups()[name]
        return f"is a group of keys; name one of them, such as {listed(below[:3])}"
    parent = name.rpartition(".")[0]
    if parent in trial_keys():
        hint = "; a size is replaced whole: {width, layers, heads}"
        if trial_keys()[parent].kinds:
            hint = "; it is replaced whole: {name, ...}"
        elif not trial_keys()[parent].is_size:
            hint = ""
        return f"unknown key; {parent} has no parts{hint}"
    siblings = groups().get(parent, ())
    # Even far ones (`cutoff=0`): a wrong word helps less than a list of the right ones.
    nearest = difflib.get_close_matches(name, siblings, n=NEAREST, cutoff=0)
    known = f"keys of {parent}, nearest first: {listed(nearest)}" if siblings else _sections()
    more = ", ..." if len(siblings) > NEAREST else ""
    return f"unknown key; {known}{more}{_near_key(name)}"


def _sections() -> str:
    return f"keys are dotted and begin with {listed(SECTIONS)}, such as tokenizer.encoder"


def _near_key(name: str) -> str:
    """Suggest the nearest key by its whole name, or by its last part if the section is missing."""
    whole = did_you_mean(name, trial_keys())
    last = name.rpartition(".")[2]
    same_end = [key for key in trial_keys() if key.rpartition(".")[2] == last]
    # `lr` is far from `tokenizer.lr` by letters, but surely means such a key.
    return f"; did you mean '{same_end[0]}'?" if same_end and "." not in name else whole


Sizes = Mapping[str, TransformerSize]


class Checker:
    """Checker of values against their keys; it knows the size names of one scale.

    Args:
        problems: receives everything that is wrong.
        scale: name of the scale, for messages.
        sizes: tokenizer sizes by name; None if the scale could not be read.
        generator_sizes: generator sizes by name; None if the scale could not be read.
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
        """Check the value of key `name`; None after a problem was reported."""
        key = trial_keys().get(name)
        if key is None:
            hint = "is not set as a key; give the sweep `seeds: [0, 1]` instead"
            self.problems.append(Problem(node.key_place, where, unknown_key(name, hint)))
            return None
        written = node.plain()
        if key.is_size:
            value: Any = self._size(name, node, where)
            return None if value is None else Setting(value, written, node.place, where, rank)
        if key.kinds:
            value = _read_one_of(key, node, where, self.problems)
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
        # The unreadable scale has been reported; each of its sizes would only repeat that.
        if sizes is None:
            return None
        if isinstance(node.value, str) and node.value in sizes:
            return sizes[node.value]
        kind = "generator sizes" if name == GENERATOR_SIZE else "sizes"
        text = f"got {show(node.plain())}; {kind} of scale {self.scale}: {listed(sizes)}"
        text += ", or a mapping {width, layers, heads}" + did_you_mean(node.plain(), sizes)
        self.problems.append(Problem(node.place, where, text))
        return None


def _read_one_of(key: Key, node: Node, where: str, problems: list[Problem]) -> Config | None:
    """Read a config that its `name` tells from others; None after problems were reported."""
    name = node.value.get("name") if isinstance(node.value, dict) else None
    given = None if name is None else name.plain()
    if not isinstance(node.value, dict) or name is None:
        text = f"got {show(node.plain())}; must be a mapping {{name, ...}}, with name "
        text += f"one of {listed(key.kinds)}{did_you_mean(node.plain(), key.kinds)}"
        problems.append(Problem(node.place, where, text))
        return None
    if not isinstance(given, str) or given not in key.kinds:
        text = f"got {show(given)}; must be one of {listed(key.kinds)}"
        text += did_you_mean(given, key.kinds)
        problems.append(Problem(name.place, f"{where}.name", text))
        return None
    kind = key.kinds[given]
    parts = {part: Key(part, field) for part, field in kind.model_fields.items()}
    return read_parts(kind, f"{given} has", parts, {}, node, where, problems)


def read_size(
    name: str, node: Node, where: str, problems: list[Problem]
) -> TransformerSize | None:
    """Read a size from its mapping {width, layers, heads}; None after problems were reported."""
    if not isinstance(node.value, dict):
        text = f"got {show(node.plain())}; must be a mapping {{width, layers, heads}}"
        problems.append(Problem(node.place, where, text))
        return None
    named = {"name": name}
    return read_parts(TransformerSize, "a size has", size_keys(), named, node, where, problems)


C = TypeVar("C", bound=Config)


def read_parts(
    kind: type[C],
    what: str,
    parts: Mapping[str, Key],
    given: Mapping[str, Any],
    node: Node,
    where: str,
    problems: list[Problem],
) -> C | None:
    """Read a config from its mapping; None after problems were reported.

    Args:
        kind: type of the config.
        what: beginning of a sentence that lists its parts.
        parts: keys that the mapping may have.
        given: values of other fields.
        node: the mapping.
        where: its key.
        problems: receives everything that is wrong.
    """
    before = len(problems)
    assert isinstance(node.value, dict)
    for key, item in node.value.items():
        if key not in parts:
            text = f"unknown key; {what} {listed(parts)}{did_you_mean(key, parts)}"
            problems.append(Problem(item.key_place, f"{where}.{key}", text))
        # Each part is checked on its own, so that all mistakes are reported at once.
        elif wrong := parts[key].problem(item.plain()):
            problems.append(Problem(item.place, f"{where}.{key}", wrong))
    for key, part in parts.items():
        if part.field.is_required() and key not in node.value:
            text = f"missing; must be {part.allowed}"
            problems.append(Problem(node.place, f"{where}.{key}", text))
    if len(problems) > before:
        return None
    try:
        return kind(**given, **{k: _integral(v) for k, v in node.plain().items()})
    except ValidationError as error:
        for one in error.errors():
            problems.append(Problem(node.place, where, str(one["ctx"]["error"])))
        return None
