"""Expansion of a sweep: every combination of its axes as a checked, named trial.

Sections of a trial are validated once per distinct combination of the axes that affect them, so
ten thousand trials cost a fraction of a second.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from gigatok.config import Config, TrialConfig
from orchestration.sweep.cells import Cell, Cells, Judgement, Solved, construct, picker
from orchestration.sweep.config_keys import (
    SECTIONS,
    SUFFIX_2D,
    TOKENIZER_SIZES,
    TOKENIZER_VARIANT,
    Setting,
    trial_keys,
)
from orchestration.sweep.expressions import Value
from orchestration.sweep.formulas import Formulas
from orchestration.sweep.naming import Name, namer, varying_keys
from orchestration.sweep.scales import Scale, missing_key
from orchestration.yaml.source import Place, Problem, show

MAX_TRIALS = 1_000_000
SEED = "seed"


@dataclass(frozen=True)
class Trial:
    """Trial: one assignment of the axes, with a seed.

    Attributes:
        name: readable and unique within the sweep, such as `S-B semantic_weight=0.5 seed=1`.
        config: the whole checked configuration.
        axes: key -> value as written, of every axis and of `seed`.
        solved: solutions of `solve`.
        derived: name -> value of every entry of `derive`.
    """

    name: str
    config: TrialConfig
    axes: Mapping[str, Any]
    solved: tuple[Solved, ...] = ()
    derived: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """Axes of a cell that `where` dropped, and the expression that dropped it."""

    axes: Mapping[str, Any]
    by: str


@dataclass(frozen=True)
class Expansion:
    """Trials of a sweep, plus the grid cells that became no trial.

    `excluded` cells were removed by `exclude`, `dropped` cells by `where`, and `repeated` cells of
    `include` existed already.
    """

    trials: tuple[Trial, ...]
    excluded: tuple[Mapping[str, Any], ...]
    dropped: tuple[Dropped, ...] = ()
    repeated: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Dimension:
    """Dimension of the grid: an axis has one key, a `zip` group several; each row is a choice."""

    rows: tuple[Mapping[str, Setting], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the dimension, the same in every row."""
        return tuple(self.rows[0])

    def varies(self, key: str) -> bool:
        """Tell whether a key takes more than one value."""
        return any(row[key].value != self.rows[0][key].value for row in self.rows)


@dataclass(frozen=True)
class Rule:
    """Entry of `exclude`: drops the cells in which every key has one of its values."""

    values: Mapping[str, tuple[Any, ...]]
    place: Place

    def rows(self, dimension: Dimension) -> frozenset[int]:
        """Find the rows of a dimension that agree with the rule; all if it names no key of it."""
        keys = [key for key in dimension.keys if key in self.values]
        return frozenset(
            index
            for index, row in enumerate(dimension.rows)
            if all(row[key].value in self.values[key] for key in keys)
        )


Block = tuple[Dimension, ...]
"""Axes, zip groups and, last, the seeds: every combination is a cell."""


def expand_cells(
    blocks: Sequence[Block],
    rules: tuple[Rule, ...],
    scale: Scale,
    fixed: Mapping[str, Setting],
    formulas: Formulas,
    problems: list[Problem],
) -> Expansion:
    """Build every trial; problems of combinations go to `problems`.

    Args:
        blocks: the product of the axes, followed by the entries of `include`.
        rules: cells to drop; in `include`, cells with these values, whatever gives the values.
        scale: source of all other values.
        fixed: `set`, and values of `--set` that no axis varies.
        formulas: `derive`, `where` and `solve`.
        problems: receives each problem once, however many trials have it.
    """
    keys = dict.fromkeys(key for block in blocks for d in block[:-1] for key in d.keys)
    found = _Found([], [], [], [], set(), set(), (*keys, SEED))
    varying = varying_keys([[dimension.rows for dimension in block] for block in blocks])
    solved = {solve.sets: solve.key for solve in formulas.solve}
    for block in blocks:
        build = _Builder(block, scale, fixed, formulas, problems)
        name = namer([d.rows for d in block], varying, {**scale.trial, **fixed}, solved)
        _expand_block(build, rules, name, found, len(blocks) == 1)
    return Expansion(
        tuple(found.trials), tuple(found.excluded), tuple(found.dropped), tuple(found.repeated)
    )


@dataclass(frozen=True)
class _Found:
    """Results of the blocks so far; `keys` are the keys of all blocks."""

    trials: list[Trial]
    excluded: list[Mapping[str, Any]]
    dropped: list[Dropped]
    repeated: list[Mapping[str, Any]]
    names: set[str]
    drafts: set[TrialConfig]
    keys: tuple[str, ...]

    def has(self, draft: TrialConfig | None) -> bool:
        """Tell whether an equal cell came before, whether it was kept or not."""
        # Drafts and not axes are compared: an entry of `include` names other keys than the axes.
        if draft is None or draft in self.drafts:
            return draft is not None
        self.drafts.add(draft)
        return False


def _expand_block(
    build: _Builder, rules: tuple[Rule, ...], name: Name, found: _Found, is_alone: bool
) -> None:
    judgement: Judgement | None = Judgement()
    excludes = build.excludes(rules)
    for cell in itertools.product(*(range(len(d.rows)) for d in build.dimensions)):
        axes = build.axes(cell, found.keys)
        # Only `include` can repeat a cell; a single block is spared the cost.
        if not is_alone and found.has(build.draft(cell)):
            found.repeated.append(axes)
            continue
        if excludes(cell):
            found.excluded.append(axes)
            continue
        if build.cells is not None:
            judgement = build.cells.judge(cell)
        if judgement is not None and judgement.dropped_by is not None:
            found.dropped.append(Dropped(axes, judgement.dropped_by))
        elif (config := build.trial(cell, judgement)) is not None and judgement is not None:
            title = name(cell, config)
            if title in found.names:  # sizes that differ before `solve` made them equal
                title += "".join(f" {key}={show(value)}" for key, value in axes.items())
            found.names.add(title)
            derived = judgement.derived or {}
            found.trials.append(Trial(title, config, axes, judgement.solved, derived))


class _Builder:
    """Builder of trial configs from sections, each validated once per distinct content."""

    def __init__(
        self,
        dimensions: Block,
        scale: Scale,
        fixed: Mapping[str, Setting],
        formulas: Formulas,
        problems: list[Problem],
    ) -> None:
        self.dimensions = dimensions
        self.scale = scale
        self.fixed = fixed
        self.problems = problems
        # Problems that were found before this block are not reported again.
        self.reported: set[Problem] = set(problems)
        self.cache: dict[tuple[str, Any], Config | None] = {}
        self.drafts: dict[tuple[str, Any], Config | None] = {}
        self.cells: Cells | None = None
        if formulas:
            self.cells = Cells(formulas, self._touching, self.draft, self._words, problems)
        # Drafts ignore `solve`, so they depend on fewer dimensions, and are shared by more cells.
        self.pick_draft = {s: picker(self._touching(_keys_of(s))) for s in SECTIONS}
        depends = self.cells.depends if self.cells else self._touching
        self.pick = {section: picker(depends(_keys_of(section))) for section in SECTIONS}
        self.written = [
            [{key: row[key].written for key in row} for row in dimension.rows]
            for dimension in dimensions
        ]
        self.given: dict[tuple[str, Any], Any] = {}

    def axes(self, cell: Cell, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return keys of a cell with their values as written, also keys that the block fixes."""
        axes: dict[str, Any] = {}
        for rows, index in zip(self.written, cell, strict=True):
            axes.update(rows[index])
        # The usual case, a sweep without `include`: its one block varies every key.
        if len(axes) == len(keys):
            return axes
        return {key: axes[key] if key in axes else self._given(key, cell) for key in keys}

    def _given(self, key: str, cell: Cell) -> Any:
        section = key.partition(".")[0]
        known = (key, self.pick_draft[section](cell))
        if known not in self.given:
            setting = self._settings(section, cell, {}).get(key)
            default = trial_keys()[key].default
            self.given[known] = default if setting is None else setting.written
        return self.given[known]

    def excludes(self, rules: Iterable[Rule]) -> Callable[[Cell], bool]:
        """Return a test for cells that a rule drops; a fixed key counts with the trial's value."""
        own = {key for dimension in self.dimensions for key in dimension.keys}
        # Sets of row numbers: each cell is then tested without comparing a value.
        drops = [
            (
                tuple(rule.rows(dimension) for dimension in self.dimensions),
                {key: values for key, values in rule.values.items() if key not in own},
            )
            for rule in rules
        ]
        return lambda cell: any(
            all(map(frozenset.__contains__, rows, cell)) and self._has(cell, others)
            for rows, others in drops
        )

    def _has(self, cell: Cell, values: Mapping[str, tuple[Any, ...]]) -> bool:
        draft = self.draft(cell) if values else None
        return not values or (
            draft is not None and all(attrgetter(k)(draft) in v for k, v in values.items())
        )

    def _touching(self, keys: Iterable[str]) -> frozenset[int]:
        """Return the dimensions that give any of the keys, or decide which recipe gives them."""
        wanted = set(keys)
        # A recipe is chosen by both sizes and the variant, so these decide every tokenizer key.
        if self.scale.recipes and any(key.startswith("tokenizer.") for key in wanted):
            wanted |= {*TOKENIZER_SIZES, TOKENIZER_VARIANT}
        return frozenset(
            d for d, dimension in enumerate(self.dimensions) if wanted.intersection(dimension.keys)
        )

    def _words(self, cell: Cell, dims: Iterable[int]) -> str:
        given = {
            key: setting.written
            for d in sorted(dims)
            for key, setting in self.dimensions[d].rows[cell[d]].items()
        }
        text = ", ".join(f"{key}={show(value)}" for key, value in given.items())
        return f" (at {text})" if text else ""

    def draft(self, cell: Cell) -> TrialConfig | None:
        """Return the trial without `solve`, not validated; None if a value is missing."""
        sections: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            key = (section, self.pick_draft[section](cell))
            if key not in self.drafts:
                nested = _nested(self._settings(section, cell, {}), len(section) + 1)
                self.drafts[key] = construct(kind, nested)
            sections[section] = self.drafts[key]
        if None in sections.values():
            return None
        seed = self.dimensions[-1].rows[cell[-1]][SEED].value
        return TrialConfig.model_construct(**sections, seed=seed)

    def trial(self, cell: Cell, judgement: Judgement | None) -> TrialConfig | None:
        """Return the config of a cell; None after a problem was reported."""
        sections: dict[str, Any] = {}
        solutions = () if judgement is None else judgement.solved
        for section in SECTIONS:
            key = (section, self.pick[section](cell))
            if key not in self.cache:
                solved = {solution.setting.where: solution.setting for solution in solutions}
                self.cache[key] = self._section(section, cell, solved)
            sections[section] = self.cache[key]
        if None in sections.values():
            return None
        seed = self.dimensions[-1].rows[cell[-1]][SEED].value
        # Pydantic takes valid sections as they are, so only the checks across sections run here.
        try:
            return TrialConfig(**sections, seed=seed)
        except ValidationError as error:
            # Rare and slow: all settings of the cell, to find the one to blame.
            settings: dict[str, Setting] = {}
            solved = {solution.setting.where: solution.setting for solution in solutions}
            for section in SECTIONS:
                settings |= self._settings(section, cell, solved)
            self._report(error, settings, "")
            return None

    def _settings(
        self, section: str, cell: Cell, solved: Mapping[str, Setting]
    ) -> dict[str, Setting]:
        """Collect the settings of a section: scale < recipe < `set` < axes < `solve` < `--set`."""
        prefix = f"{section}."
        varied = {
            key: setting
            for dimension, index in zip(self.dimensions, cell, strict=True)
            for key, setting in dimension.rows[index].items()
            if key.startswith(prefix)
        }
        below = {k: v for k, v in self.scale.trial.items() if k.startswith(prefix)}
        fixed = {k: v for k, v in self.fixed.items() if k.startswith(prefix)}
        # The recipe depends on sizes that an axis may give, but ranks below the axes.
        sizes = {**below, **fixed, **varied}
        recipe = self._recipe(sizes) if section == "tokenizer" else {}
        found = {k: v for k, v in solved.items() if k.startswith(prefix)}
        return {**below, **recipe, **fixed, **varied, **found}

    def _recipe(self, settings: Mapping[str, Setting]) -> Mapping[str, Setting]:
        """Return the recipe of the tokenizer's name; settings of its 2D form override it."""
        sizes = [settings[key].value.name for key in TOKENIZER_SIZES if key in settings]
        name = "-".join(sizes)
        recipe = self.scale.recipes.get(name, {})
        variant = settings.get(TOKENIZER_VARIANT)
        if variant is None or variant.value != "2d":
            return recipe
        return {**recipe, **self.scale.recipes.get(name + SUFFIX_2D, {})}

    def _section(self, section: str, cell: Cell, solved: Mapping[str, Setting]) -> Config | None:
        settings = self._settings(section, cell, solved)
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


@cache
def _keys_of(section: str) -> frozenset[str]:
    return frozenset(key for key in trial_keys() if key.startswith(f"{section}."))


def _nested(settings: Mapping[str, Setting], skip: int) -> dict[str, Any]:
    """Convert dotted keys to nested dicts, without the first `skip` characters of each key."""
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


def count(blocks: Sequence[Block]) -> int:
    """Count the cells before `exclude` and `where`."""
    return sum(math.prod(len(dimension.rows) for dimension in block) for block in blocks)
