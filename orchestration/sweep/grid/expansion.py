"""Expansion of a sweep: every combination of its axes as a checked, named trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from gigatok.config import SECTIONS, Config, TrialConfig
from gigatok.config.once import OncePerSections
from gigatok.config.trial import check_generator, check_tokenizer
from orchestration.sweep.formulas.expressions import Value
from orchestration.sweep.formulas.formulas import Formulas
from orchestration.sweep.formulas.solving import Solved
from orchestration.sweep.grid.cells import Cell, Cells, Judgement, picker
from orchestration.sweep.grid.naming import Name, namer, varying_keys
from orchestration.sweep.grid.sections import (
    CellSettings,
    Dimension,
    Dimensions,
    construct,
    explain,
    nested,
    sections_of,
)
from orchestration.sweep.settings.keys import SEED, trial_keys
from orchestration.sweep.settings.scales import Scale
from orchestration.sweep.settings.settings import Setting
from orchestration.yaml.source import Place, Problem, show

MAX_TRIALS = 1_000_000


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


def expand_cells(
    blocks: Sequence[Dimensions],
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
    varying = varying_keys(blocks)
    solved = [solve.sets for solve in formulas.solve]
    # Of all blocks: trials of a sweep have the same sections.
    sections = sections_of([*keys, *solved, *fixed, *scale.trial])
    for block in blocks:
        settings = CellSettings(block, scale, fixed, sections)
        build = _Builder(settings, formulas, problems)
        name = namer(block, varying, solved)
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
    excludes = build.excludes(rules)
    for cell in itertools.product(*(range(len(d.rows)) for d in build.block)):
        axes = build.axes(cell, found.keys)
        # Only `include` can repeat a cell; a single block is spared the cost.
        if not is_alone and found.has(build.draft(cell)):
            found.repeated.append(axes)
        elif excludes(cell):
            found.excluded.append(axes)
        elif (judgement := build.judge(cell)) is None:
            build.trial(cell, Judgement())  # so that problems of its values are reported as well
        elif judgement.dropped_by is not None:
            found.dropped.append(Dropped(axes, judgement.dropped_by))
        elif (config := build.trial(cell, judgement)) is not None:
            title = name(config)
            if title in found.names:  # sizes that differ before `solve` made them equal
                title += "".join(f" {key}={show(value)}" for key, value in axes.items())
            found.names.add(title)
            derived = judgement.derived or {}
            found.trials.append(Trial(title, config, axes, judgement.solved, derived))


@dataclass(frozen=True)
class _Part:
    """Sections that depend on the same dimensions, by the rows that `pick` takes of a cell."""

    pick: Callable[[Cell], Any]
    sections: tuple[str, ...]
    known: dict[Any, dict[str, Config]]


class _Builder:
    """Builder of the trials of a block; sections are built once per distinct content."""

    def __init__(
        self,
        settings: CellSettings,
        formulas: Formulas,
        problems: list[Problem],
    ) -> None:
        self.block = settings.block
        self.problems = problems
        # Problems that were found before this block are not reported again.
        self.reported: set[Problem] = set(problems)
        self.settings = settings
        touching = self.settings.touching
        self.cells: Cells | None = None
        if formulas:
            words = self.settings.words
            self.cells = Cells(formulas, touching, self.draft, words, problems)
        # Drafts ignore `solve`, so they depend on fewer dimensions, and are shared by more cells.
        self.pick_draft = self.settings.pickers(touching)
        self.parts = [
            _Part(picker(dims), names, {})
            for dims, names in settings.grouped(self.cells.depends if self.cells else touching)
        ]
        self.drafts: dict[str, dict[Any, Config | None]] = {name: {} for name in settings.sections}
        self.written = [
            [{key: row[key].written for key in row} for row in dimension.rows]
            for dimension in self.block
        ]
        self.given: dict[tuple[str, Any], Any] = {}
        # Not `check_generator`: a grid has few tokenizers and many pairs of one and a generator.
        self.check_tokenizer = OncePerSections(check_tokenizer)

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
            setting = self.settings.of(section, cell, {}).get(key)
            self.given[known] = trial_keys()[key].default if setting is None else setting.written
        return self.given[known]

    def excludes(self, rules: Iterable[Rule]) -> Callable[[Cell], bool]:
        """Return a test for cells that a rule drops; a fixed key counts with the trial's value."""
        own = {key for dimension in self.block for key in dimension.keys}
        # Sets of row numbers: each cell is then tested without comparing a value.
        drops = [
            (
                tuple(rule.rows(dimension) for dimension in self.block),
                {key: values for key, values in rule.values.items() if key not in own},
            )
            for rule in rules
        ]

        # A plain loop: most sweeps have no rules, and ten thousand cells.
        def excluded(cell: Cell) -> bool:
            for rows, others in drops:
                if all(map(frozenset.__contains__, rows, cell)) and self._has(cell, others):
                    return True
            return False

        return excluded

    def _has(self, cell: Cell, values: Mapping[str, tuple[Any, ...]]) -> bool:
        draft = self.draft(cell) if values else None
        return not values or (
            draft is not None and all(attrgetter(k)(draft) in v for k, v in values.items())
        )

    def judge(self, cell: Cell) -> Judgement | None:
        """Apply the formulas to a cell; None after a problem was reported."""
        return Judgement() if self.cells is None else self.cells.judge(cell)

    def draft(self, cell: Cell) -> TrialConfig | None:
        """Return the trial without `solve`, not validated; None if a value is missing."""
        sections: dict[str, Any] = {}
        for section, pick in self.pick_draft.items():
            known, rows = self.drafts[section], pick(cell)
            if rows not in known:
                values = nested(self.settings.of(section, cell, {}), len(section) + 1)
                known[rows] = construct(SECTIONS[section], values)
            # By identity: pydantic compares a config with None field by field.
            if known[rows] is None:
                return None
            sections[section] = known[rows]
        return TrialConfig.model_construct(**sections, seed=self.settings.seed(cell))

    def trial(self, cell: Cell, judgement: Judgement) -> TrialConfig | None:
        """Return the config of a cell; None after problems of its sections were reported."""
        sections: dict[str, Any] = {"seed": self.settings.seed(cell)}
        for part in self.parts:
            rows = part.pick(cell)
            if rows not in part.known:
                part.known[rows] = self._build(part.sections, cell, judgement)
            sections |= part.known[rows]
        if len(sections) <= len(self.settings.sections):
            return None  # one of them has a problem
        # The sections are valid, so only the checks across sections are left.
        trial = TrialConfig.model_construct(**sections)
        try:
            self.check_tokenizer(trial)
            check_generator(trial)
        except ValueError:
            self._blame(sections, self._settings(cell, judgement, *self.settings.sections))
            return None
        return trial

    def _blame(self, values: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
        """Report why sections do not go together, with the setting that is to blame."""
        try:
            TrialConfig(**values)
        except ValidationError as error:
            self._report(error, settings, "")

    def _settings(self, cell: Cell, judgement: Judgement, *sections: str) -> dict[str, Setting]:
        solved = {solution.setting.where: solution.setting for solution in judgement.solved}
        found = (self.settings.of(section, cell, solved) for section in sections)
        return {key: setting for settings in found for key, setting in settings.items()}

    def _build(
        self, sections: Iterable[str], cell: Cell, judgement: Judgement
    ) -> dict[str, Config]:
        """Build sections, those without a problem."""
        built = {s: self._section(s, self._settings(cell, judgement, s)) for s in sections}
        return {section: config for section, config in built.items() if config is not None}

    def _section(self, section: str, settings: Mapping[str, Setting]) -> Config | None:
        try:
            return SECTIONS[section](**nested(settings, len(section) + 1))
        except ValidationError as error:
            self._report(error, settings, section)
            return None

    def _report(
        self, error: ValidationError, settings: Mapping[str, Setting], prefix: str
    ) -> None:
        for problem in explain(error, settings, prefix, self.settings.scale):
            if problem not in self.reported:
                self.reported.add(problem)
                self.problems.append(problem)


def count(blocks: Sequence[Dimensions]) -> int:
    """Count the cells before `exclude` and `where`."""
    return sum(math.prod(len(dimension.rows) for dimension in block) for block in blocks)
