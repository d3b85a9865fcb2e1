"""Sections of a trial's config: the settings that apply in a cell, and whom to blame for a fault.

Each section is built once per distinct combination of the axes that affect it, so ten thousand
trials cost a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gigatok.config import SECTIONS, Config, TrialConfig
from orchestration.sweep.grid.cells import Cell, picker
from orchestration.sweep.settings.keys import (
    SEED,
    SUFFIX_2D,
    TOKENIZER_SIZES,
    TOKENIZER_VARIANT,
    groups,
)
from orchestration.sweep.settings.scales import Scale, missing_key
from orchestration.sweep.settings.settings import Setting
from orchestration.yaml.source import Problem, show


@dataclass(frozen=True)
class Dimension:
    """Dimension of the grid: an axis has one key, a `zip` group several; each row is a choice."""

    rows: tuple[Mapping[str, Setting], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the dimension, the same in every row."""
        return tuple(self.rows[0])


Dimensions = tuple[Dimension, ...]
"""Axes, zip groups and, last, the seeds: every combination is a cell."""


@dataclass(frozen=True)
class CellSettings:
    """Settings of the cells of a block.

    Attributes:
        block: the dimensions.
        scale: source of all values that nothing else gives.
        fixed: `set`, and values of `--set` that no axis varies.
        sections: names of the sections that trials of the sweep have.
    """

    block: Dimensions
    scale: Scale
    fixed: Mapping[str, Setting]
    sections: Sequence[str]

    def touching(self, keys: Iterable[str]) -> frozenset[int]:
        """Return the dimensions that give any of the keys, or decide which recipe gives them."""
        wanted = set(keys)
        # A recipe is chosen by both sizes and the variant, so these decide every tokenizer key.
        if self.scale.recipes and any(key.startswith("tokenizer.") for key in wanted):
            wanted |= {*TOKENIZER_SIZES, TOKENIZER_VARIANT}
        return frozenset(
            d for d, dimension in enumerate(self.block) if wanted.intersection(dimension.keys)
        )

    def pickers(
        self, depends: Callable[[Iterable[str]], frozenset[int]]
    ) -> dict[str, Callable[[Cell], Any]]:
        """Map each section to a function from a cell to the rows that decide the section."""
        return {section: picker(depends(groups()[section])) for section in self.sections}

    def grouped(
        self, depends: Callable[[Iterable[str]], frozenset[int]]
    ) -> list[tuple[frozenset[int], tuple[str, ...]]]:
        """List the dimensions that decide sections, each with the sections that they decide."""
        found: dict[frozenset[int], tuple[str, ...]] = {}
        for section in self.sections:
            dims = depends(groups()[section])
            found[dims] = (*found.get(dims, ()), section)
        return list(found.items())

    def words(self, cell: Cell, dims: Iterable[int]) -> str:
        """Describe a cell by its values in some dimensions, for messages."""
        rows = (self.block[d].rows[cell[d]] for d in sorted(dims))
        given = [f"{key}={show(setting.written)}" for row in rows for key, setting in row.items()]
        return f" (at {', '.join(given)})" if given else ""

    def seed(self, cell: Cell) -> int:
        """Return the seed of a cell."""
        seed: int = self.block[-1].rows[cell[-1]][SEED].value
        return seed

    def of(self, section: str, cell: Cell, solved: Mapping[str, Setting]) -> dict[str, Setting]:
        """Collect the settings of a section: scale < recipe < `set` < axes < `solve` < `--set`."""
        rows = [d.rows[index] for d, index in zip(self.block, cell, strict=True)]
        below, fixed, *varied, found = (
            {key: setting for key, setting in settings.items() if key.startswith(f"{section}.")}
            for settings in (self.scale.trial, self.fixed, *rows, solved)
        )
        given = dict(fixed)
        for row in varied:
            given |= row
        # The recipe depends on sizes that an axis may give, but ranks below the axes.
        recipe = self._recipe({**below, **given}) if section == "tokenizer" else {}
        return {**below, **recipe, **given, **found}

    def _recipe(self, settings: Mapping[str, Setting]) -> Mapping[str, Setting]:
        """Return the recipe of the tokenizer's name; settings of its 2D form override it."""
        name = "-".join(settings[key].value.name for key in TOKENIZER_SIZES if key in settings)
        recipe = self.scale.recipes.get(name, {})
        variant = settings.get(TOKENIZER_VARIANT)
        if variant is None or variant.value != "2d":
            return recipe
        return {**recipe, **self.scale.recipes.get(name + SUFFIX_2D, {})}


def sections_of(given: Iterable[str]) -> tuple[str, ...]:
    """List the sections that trials have: those of plug-ins only if one of their keys is given."""
    named = {key.partition(".")[0] for key in given}
    return tuple(name for name in SECTIONS if name in TrialConfig.model_fields or name in named)


def nested(settings: Mapping[str, Setting], skip: int) -> dict[str, Any]:
    """Convert dotted keys to nested dicts, without the first `skip` characters of each key."""
    root: dict[str, Any] = {}
    for key, setting in settings.items():
        inner = root
        *parents, last = key[skip:].split(".")
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = setting.value
    return root


def explain(
    error: ValidationError, settings: Mapping[str, Setting], prefix: str, scale: Scale
) -> Iterator[Problem]:
    """Yield each error at the line of the value to blame; single values were checked before."""
    for one in error.errors(include_url=False):
        where = ".".join(part for part in (prefix, *map(str, one["loc"])) if part)
        # No value to blame: the key is given neither by the scale nor by the sweep.
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
    """Find, among the keys that a message names, the one set last: an axis before the scale."""
    named: list[Setting] = []
    # The validators in `gigatok.config` name the keys that do not fit together.
    for word in re.findall(r"[a-z][\w.]*\w", text):
        full = f"{where}.{word}" if where else word
        if full in settings:
            named.append(settings[full])
        elif "." in word:
            below = [item for key, item in settings.items() if key.startswith(f"{word}.")]
            named += sorted(below, key=lambda item: -item.rank)[:1]
    return max(named, key=lambda item: item.rank, default=None)


def construct(kind: type[Config], values: Mapping[str, Any]) -> Config | None:
    """Build a config without validation; None if a required value is missing."""
    given: dict[str, Any] = {}
    values = kind.completed(values)
    for name, field in kind.model_fields.items():
        nested: Any = field.annotation
        if name not in values:
            if field.is_required():
                return None
        # Values of keys are never mappings, so that this is a config inside the config.
        elif isinstance(values[name], dict):
            given[name] = construct(nested, values[name])
            if given[name] is None:
                return None
        else:
            given[name] = values[name]
    return kind.model_construct(**given)
