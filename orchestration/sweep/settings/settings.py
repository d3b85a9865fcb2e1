"""Settings: values of keys, checked by the types of the config and the sizes of a scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from gigatok.config import Config, TransformerSize
from orchestration.sweep.settings.keys import (
    GENERATOR_SIZE,
    SIZE_FIELDS,
    Key,
    find_key,
    size_keys,
)
from orchestration.yaml.parts import Part
from orchestration.yaml.source import Place, Problem, did_you_mean, listed, show
from orchestration.yaml.values import one_of

# The order is the precedence: a scale gives way to all others, and `--set` to none.
RANK_SCALE, RANK_RECIPE, RANK_SET, RANK_AXIS, RANK_OVERRIDE = range(5)


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


AxisValues = dict[str, tuple[Setting, ...]]
"""Key -> its values."""
Sizes = Mapping[str, TransformerSize]
C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class SizeNames:
    """Names of sizes that settings may use.

    Attributes:
        scale: name of the scale, for messages.
        tokenizer: tokenizer sizes by name; None if the scale could not be read.
        generator: generator sizes by name; None if the scale could not be read.
    """

    scale: str = ""
    tokenizer: Sizes | None = field(default=None, repr=False)
    generator: Sizes | None = field(default=None, repr=False)

    def setting(self, key: str, part: Part, rank: int = RANK_AXIS) -> Setting | None:
        """Check the value that a part gives a key; None after a problem was reported."""
        known = find_key(key, part)
        if known is None:
            return None
        try:
            value = self._value(known, part)
        except ValueError as error:
            part.report(str(error))
            return None
        # None of these was reported, or will be with its scale; an optional key may be null.
        if value is None and (known.is_size or known.kinds):
            return None
        return Setting(value, part.plain(), part.place, part.key, rank)

    def settings(self, key: str, parts: Iterable[Part]) -> tuple[Setting, ...]:
        """Check several values of a key; those with a problem are reported and left out."""
        found = [self.setting(key, part) for part in parts]
        return tuple(setting for setting in found if setting is not None)

    def _value(self, key: Key, part: Part) -> Any:
        if key.is_size:
            return self._size(key.name, part)
        return read_one_of(key.kinds, part) if key.kinds else key.type.check(part.plain())

    def _size(self, key: str, part: Part) -> TransformerSize | None:
        if part.is_mapping:
            return read_size("", part)
        is_generator = key == GENERATOR_SIZE
        sizes = self.generator if is_generator else self.tokenizer
        # The unreadable scale has been reported; each of its sizes would only repeat that.
        if sizes is None:
            return None
        given = part.plain()
        if isinstance(given, str) and given in sizes:
            return sizes[given]
        kind = "generator sizes" if is_generator else "sizes"
        text = f"got {show(given)}; {kind} of scale {self.scale}: {listed(sizes)}"
        text += ", or a mapping {width, layers, heads}" + did_you_mean(given, sizes)
        raise ValueError(text)


def read_size(name: str, part: Part) -> TransformerSize | None:
    """Read a size from its mapping {width, layers, heads}; None after problems were reported."""
    if not part.is_mapping:
        part.report_wrong("a mapping {width, layers, heads}")
        return None
    # Each part is checked on its own, so that all mistakes of a size are reported at once.
    before = len(part.problems)
    values = part.fields({n: key.type for n, key in size_keys().items()}, "a size", SIZE_FIELDS)
    if len(part.problems) > before:
        return None
    return _built(TransformerSize, {"name": name, **values}, part)


def read_one_of(kinds: Mapping[str, type[Config]], part: Part) -> Config | None:
    """Read a config that its `name` tells from others; None after problems were reported."""
    named = part.part("name")
    given = part.plain()
    if not part.is_mapping or not named.is_given:
        known = kinds.get(given) if isinstance(given, str) else None
        cure = did_you_mean(given, kinds) if known is None else f"; write {_least(given, known)}"
        part.report_wrong(f"a mapping {{name, ...}}, with name one of {listed(kinds)}{cure}")
        return None
    before = len(part.problems)
    name = named.read(one_of(kinds))
    if len(part.problems) > before or name is None:
        return None
    fields = kinds[name].model_fields.items()
    values = part.fields(
        {n: Key(n, field).type for n, field in fields}, name, _required(kinds[name])
    )
    return None if len(part.problems) > before else _built(kinds[name], values, part)


def _required(kind: type[Config]) -> list[str]:
    return [name for name, field in kind.model_fields.items() if field.is_required()]


def _least(name: str, kind: type[Config]) -> str:
    """Write the shortest mapping that chooses a config; its values are the user's to give."""
    others = (f", {field}: ..." for field in _required(kind) if field != "name")
    return f"{{name: {name}{''.join(others)}}}"


def _built(kind: type[C], values: Mapping[str, Any], part: Part) -> C | None:
    """Build a config of values that are right by themselves; report how they do not fit."""
    try:
        return kind(**values)
    except ValidationError as error:
        part.report("; ".join(str(one["ctx"]["error"]) for one in error.errors()))
        return None


def report_repeats(settings: Iterable[Setting], part: Part) -> None:
    """Report values that stand in a list twice."""
    seen = set[str]()
    for setting in settings:
        # By `repr`, since 1 and true are equal in Python.
        if repr(setting.value) in seen:
            text = f"got {show(setting.written)} twice; values must differ"
            part.problems.append(Problem(setting.place, part.key, text))
        seen.add(repr(setting.value))
