"""Every combination of a sweep's axes as a checked, named trial.

Sections of a trial are validated once per distinct combination of the axes that touch them, so
ten thousand trials cost a fraction of a second.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gigatok.config import Config, TransformerSize, TrialConfig
from orchestration.config_keys import (
    SECTIONS,
    SUFFIX_2D,
    TOKENIZER_SIZES,
    TOKENIZER_VARIANT,
    Setting,
)
from orchestration.scales import Scale, missing_key
from orchestration.yaml_source import Place, Problem

MAX_TRIALS = 1_000_000
SEED = "seed"

Cell = tuple[int, ...]
"""One row number per dimension."""


@dataclass(frozen=True)
class Trial:
    """One assignment of the axes, with a seed.

    Attributes:
        name: readable and unique within the sweep, such as `S-B semantic_weight=0.5 seed=1`.
        config: the whole checked configuration.
        axes: key -> value as written, of every axis and of `seed`.
    """

    name: str
    config: TrialConfig
    axes: Mapping[str, Any]


@dataclass(frozen=True)
class Expansion:
    """The trials of a sweep, and the axes of each cell that `exclude` dropped."""

    trials: tuple[Trial, ...]
    excluded: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Dimension:
    """Keys that vary together: an axis has one key, a `zip` group several, each row a choice."""

    rows: tuple[Mapping[str, Setting], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, the same in every row."""
        return tuple(self.rows[0])

    def varies(self, key: str) -> bool:
        """Whether a key takes more than one value."""
        return any(row[key].value != self.rows[0][key].value for row in self.rows)


@dataclass(frozen=True)
class Rule:
    """One entry of `exclude`: drops the cells where every key has one of its values."""

    values: Mapping[str, tuple[Any, ...]]
    place: Place

    def rows(self, dimension: Dimension) -> frozenset[int]:
        """The rows of a dimension that agree with the rule; all, where it says nothing."""
        keys = [key for key in dimension.keys if key in self.values]
        return frozenset(
            index
            for index, row in enumerate(dimension.rows)
            if all(row[key].value in self.values[key] for key in keys)
        )


def expand_cells(
    dimensions: tuple[Dimension, ...],
    rules: tuple[Rule, ...],
    scale: Scale,
    fixed: Mapping[str, Setting],
    problems: list[Problem],
) -> Expansion:
    """Build every trial; what is wrong with a combination goes to `problems`.

    Args:
        dimensions: axes, zip groups and, last, the seeds.
        rules: cells to drop.
        scale: where all other values come from.
        fixed: `set` and those of `--set` that no axis varies.
        problems: receives each problem once, however many trials have it.
    """
    drops = [tuple(rule.rows(dimension) for dimension in dimensions) for rule in rules]
    build = _Builder(dimensions, scale, fixed, problems)
    name = _namer(dimensions, {**scale.trial, **fixed})
    trials: list[Trial] = []
    excluded: list[Mapping[str, Any]] = []
    written = [
        [{key: row[key].written for key in row} for row in dimension.rows]
        for dimension in dimensions
    ]
    for cell in itertools.product(*(range(len(dimension.rows)) for dimension in dimensions)):
        axes: dict[str, Any] = {}
        for rows, index in zip(written, cell, strict=True):
            axes.update(rows[index])
        if any(all(map(frozenset.__contains__, drop, cell)) for drop in drops):
            excluded.append(axes)
        elif (config := build.trial(cell)) is not None:
            trials.append(Trial(name(cell), config, axes))
    return Expansion(tuple(trials), tuple(excluded))


class _Builder:
    """Assembles trial configs from sections that are validated once per distinct content."""

    def __init__(
        self,
        dimensions: tuple[Dimension, ...],
        scale: Scale,
        fixed: Mapping[str, Setting],
        problems: list[Problem],
    ) -> None:
        self.dimensions = dimensions
        self.scale = scale
        self.fixed = fixed
        self.problems = problems
        self.reported: set[Problem] = set(problems)
        self.cache: dict[tuple[str, Cell], Config | None] = {}
        self.pick = {section: self._picker(f"{section}.") for section in SECTIONS}

    def _picker(self, prefix: str) -> Callable[[Cell], Cell]:
        """Reduces a cell to the rows of the dimensions that touch a section."""
        touching = [
            index
            for index, dimension in enumerate(self.dimensions)
            if any(key.startswith(prefix) for key in dimension.keys)
        ]
        if len(touching) > 1:
            return itemgetter(*touching)
        return (lambda cell: (cell[touching[0]],)) if touching else (lambda cell: ())

    def trial(self, cell: Cell) -> TrialConfig | None:
        """The config of a cell, or None after reporting why there is none."""
        sections: dict[str, Any] = {}
        for section in SECTIONS:
            key = (section, self.pick[section](cell))
            if key not in self.cache:
                self.cache[key] = self._section(section, cell)
            sections[section] = self.cache[key]
        if None in sections.values():
            return None
        seed = self.dimensions[-1].rows[cell[-1]][SEED].value
        try:
            return TrialConfig(**sections, seed=seed)
        except ValidationError as error:
            settings: dict[str, Setting] = {}
            for section in SECTIONS:
                settings |= self._settings(section, cell)
            self._report(error, settings, "")
            return None

    def _settings(self, section: str, cell: Cell) -> dict[str, Setting]:
        """Everything given for a section: scale < recipe < `set` < axes < `--set`."""
        prefix = f"{section}."
        varied = {
            key: setting
            for dimension, index in zip(self.dimensions, cell, strict=True)
            for key, setting in dimension.rows[index].items()
            if key.startswith(prefix)
        }
        below = {k: v for k, v in self.scale.trial.items() if k.startswith(prefix)}
        fixed = {k: v for k, v in self.fixed.items() if k.startswith(prefix)}
        sizes = {**below, **fixed, **varied}
        recipe = self._recipe(sizes) if section == "tokenizer" else {}
        return {**below, **recipe, **fixed, **varied}

    def _recipe(self, settings: Mapping[str, Setting]) -> Mapping[str, Setting]:
        """The recipe of the tokenizer's name; a 2d one's own settings go over those."""
        sizes = [settings[key].value.name for key in TOKENIZER_SIZES if key in settings]
        name = "-".join(sizes)
        recipe = self.scale.recipes.get(name, {})
        variant = settings.get(TOKENIZER_VARIANT)
        if variant is None or variant.value != "2d":
            return recipe
        return {**recipe, **self.scale.recipes.get(name + SUFFIX_2D, {})}

    def _section(self, section: str, cell: Cell) -> Config | None:
        settings = self._settings(section, cell)
        try:
            return SECTIONS[section](**_nested(settings, len(section) + 1))
        except ValidationError as error:
            self._report(error, settings, section)
            return None

    def _report(
        self, error: ValidationError, settings: Mapping[str, Setting], prefix: str
    ) -> None:
        for problem in _explain(error, settings, prefix, self.scale):
            if problem not in self.reported:
                self.reported.add(problem)
                self.problems.append(problem)


def _nested(settings: Mapping[str, Setting], skip: int) -> dict[str, Any]:
    """Dotted keys as nested dicts, without the first `skip` characters of each key."""
    root: dict[str, Any] = {}
    for key, setting in settings.items():
        inner = root
        *parents, last = key[skip:].split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = setting.value
    return root


def _explain(
    error: ValidationError, settings: Mapping[str, Setting], prefix: str, scale: Scale
) -> Iterator[Problem]:
    """Each error at the line of the value to blame; values alone were checked before."""
    for one in error.errors(include_url=False):
        where = ".".join(part for part in (prefix, *map(str, one["loc"])) if part)
        if one["type"] == "missing":
            yield missing_key(scale, where)
            continue
        text = str(one["ctx"]["error"])
        guilty = _blame(text, settings, where)
        if guilty is None:
            yield Problem(scale.place, where, text)
        else:
            yield Problem(guilty.place, guilty.where, text)


def _blame(text: str, settings: Mapping[str, Setting], where: str) -> Setting | None:
    """Of the keys a message names, the one that was set last: an axis before the scale."""
    named: list[Setting] = []
    for word in re.findall(r"[a-z][\w.]*\w", text):
        full = f"{where}.{word}" if where else word
        if full in settings:
            named.append(settings[full])
        elif "." in word:
            below = [item for key, item in settings.items() if key.startswith(f"{word}.")]
            named += sorted(below, key=lambda item: -item.rank)[:1]
    return max(named, key=lambda item: item.rank, default=None)


def _namer(
    dimensions: tuple[Dimension, ...], base: Mapping[str, Setting]
) -> Callable[[Cell], str]:
    """Names cells by what varies: the tokenizer as `S-B`, then `key=value`, the seed last."""
    varying = [(d, key) for d, dim in enumerate(dimensions) for key in dim.keys if dim.varies(key)]
    pair = any(key in TOKENIZER_SIZES for _, key in varying)
    rest = [(d, key) for d, key in varying if key not in TOKENIZER_SIZES]
    short = _short_keys([key for _, key in rest])
    parts = [
        (d, [f"{short[key]}={label}" for label in _labels(key, dimensions[d])]) for d, key in rest
    ]
    if pair or not varying:
        ends = [_size_labels(key, dimensions, base) for key in TOKENIZER_SIZES]
        return lambda cell: " ".join(
            ["-".join(end(cell) for end in ends), *(labels[cell[d]] for d, labels in parts)]
        )
    return lambda cell: " ".join([labels[cell[d]] for d, labels in parts])


def _size_labels(
    key: str, dimensions: tuple[Dimension, ...], base: Mapping[str, Setting]
) -> Callable[[Cell], str]:
    for index, dimension in enumerate(dimensions):
        if key in dimension.keys:
            labels = [_label(row[key]) for row in dimension.rows]
            return lambda cell, d=index: labels[cell[d]]  # type: ignore[misc]
    fixed = _label(base[key]) if key in base else "?"
    return lambda cell: fixed


def _short_keys(keys: list[str]) -> dict[str, str]:
    """The last part of each key, or all of it where two keys end alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def _labels(key: str, dimension: Dimension) -> list[str]:
    """What the values of a key are called; files by their names where those differ."""
    whole = [_label(row[key]) for row in dimension.rows]
    if not key.startswith("adopt."):
        return whole
    values = [row[key].value for row in dimension.rows]
    names = ["trained" if value is None else Path(value).name for value in values]
    return names if len(set(names)) == len(set(whole)) else whole


def _label(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, TransformerSize):
        return value.name or f"{value.width}x{value.layers}x{value.heads}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).removesuffix(".0")


def count(dimensions: tuple[Dimension, ...]) -> int:
    """How many cells there are before `exclude`."""
    return math.prod(len(dimension.rows) for dimension in dimensions)
