"""Cells that a sweep removes from the product of its axes (`exclude`) or adds (`include`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import NonNegativeInt

from orchestration.sweep.grid.expansion import Rule
from orchestration.sweep.settings.keys import SEED, find_varying, trial_keys
from orchestration.sweep.settings.scales import Scale
from orchestration.sweep.settings.settings import (
    RANK_AXIS,
    AxisValues,
    Setting,
    SizeNames,
    report_repeats,
)
from orchestration.yaml.parts import Part
from orchestration.yaml.source import Problem, did_you_mean, listed
from orchestration.yaml.values import ValueType

SEED_NUMBER = ValueType(NonNegativeInt)
_EXAMPLE = " of mappings; write `- {tokenizer.decoder: L, generator.size: S}`"


@dataclass(frozen=True)
class Included:
    """Entry of `include`: one cell, or several if a key has several values.

    Attributes:
        part: the entry as written, for messages.
        values: key -> its values; all other keys come from the scale and `set`.
        seeds: of its cells; empty: those of the sweep.
    """

    part: Part
    values: AxisValues
    seeds: tuple[Setting, ...] = ()

    @property
    def rows(self) -> AxisValues:
        """Return its values with its seeds, if it has its own."""
        return {**self.values, SEED: self.seeds} if self.seeds else self.values

    def overridden(self, overrides: Mapping[str, Setting], *, seed: bool = False) -> Included:
        """Replace the values of the keys that `--set` gives by its one value, and the seeds."""
        values = {k: (overrides[k],) if k in overrides else v for k, v in self.values.items()}
        return replace(self, values=values, seeds=() if seed else self.seeds)

    def same_as(self, other: Included) -> bool:
        """Tell whether an entry names the same cells, in whatever order of keys and values."""
        mine, others = (
            {key: sorted(repr(setting.value) for setting in row) for key, row in e.rows.items()}
            for e in (self, other)
        )
        return mine == others


def read_include(part: Part, names: SizeNames, solved: Mapping[str, Part]) -> tuple[Included, ...]:
    """Check `include`; entries with a problem, such as a `solved` key, are left out."""
    found: list[Included] = []
    for item in part.numbered(_EXAMPLE):
        before = len(part.problems)
        parts = item.mapping()
        if not parts and len(part.problems) == before:
            item.report("is empty; name keys and values, such as {tokenizer.decoder: L}")
        seeds = _included_seeds(parts.pop(SEED)) if SEED in parts else ()
        if seeds and not parts:
            item.report("names no setting; name its keys beside seed, or use `seeds` of the sweep")
        values = {key: _included(key, value, names, solved) for key, value in parts.items()}
        entry = Included(item, {key: row for key, row in values.items() if row}, seeds)
        if len(part.problems) > before or not entry.values:
            continue
        twin = next((other for other in found if other.same_as(entry)), None)
        if twin is None:
            found.append(entry)
        else:  # a mistake of copying
            item.report(f"is {twin.part.key} of line {twin.part.place.line} again; keep one")
    return tuple(found)


def _included(
    key: str, part: Part, names: SizeNames, solved: Mapping[str, Part]
) -> tuple[Setting, ...]:
    """Read the values of a key of an entry, one or a list; empty after a problem was reported."""
    known = find_varying(key, part)
    if known is None:
        return ()
    if key in solved:
        part.report_key(f"is solved for at line {solved[key].line}; keep one")
        return ()
    # A list is one value of a key that holds lists, unless it holds lists itself.
    is_one = not part.is_list or (known.is_list and not any(i.is_list for i in part.items()))
    parts = [part] if is_one else part.items()
    if not parts:
        part.report("is empty; give at least one value")
    row = names.settings(key, parts)
    report_repeats(row, part)
    return row


def _included_seeds(part: Part) -> tuple[Setting, ...]:
    """Read the seeds of an entry, one or a list; problems are reported."""
    parts = part.items() if part.is_list else [part]
    if not parts or part.is_null:
        part.report("is empty; give at least one, such as [0]")
    numbers = [(item, item.read(SEED_NUMBER)) for item in parts]
    row = tuple(
        Setting(seed, seed, item.place, item.key, RANK_AXIS)
        for item, seed in numbers
        if seed is not None
    )
    report_repeats(row, part)
    return row


def report_own_seeds(included: Iterable[Included]) -> None:
    """Report entries with seeds of their own in a sweep whose seeds depend on its claims."""
    for entry in included:
        if entry.seeds:
            entry.part.report(
                "has seeds of its own, and `seeds: {until: decided}` chooses them; leave out seed"
            )


def report_lacking(
    included: Iterable[Included],
    varied: Iterable[str],
    given: Iterable[str],
    scale: Scale,
    problems: list[Problem],
) -> None:
    """Report axes without a value in an entry of `include`, in `set` and in the scale.

    Args:
        included: the entries.
        varied: keys of axes and zip groups.
        given: keys of `set` and `--set`.
        scale: the scale of the sweep.
        problems: receives what is wrong.
    """
    known = {*given, *scale.trial}
    # A key with a default needs no value in an entry.
    open_ = [k for k in varied if k not in known and trial_keys()[k].field.is_required()]
    for entry in included:
        for key in open_:
            if key not in entry.values:
                text = f"lacks {key}, which scale {scale.name} does not give; must be "
                text += f"{trial_keys()[key].allowed}; name it in the entry"
                problems.append(Problem(entry.part.place, entry.part.key, text))


def read_exclude(
    part: Part, names: SizeNames, axes: Collection[str]
) -> tuple[tuple[Rule, ...], tuple[Mapping[str, Any], ...]]:
    """Check `exclude` over the declared axes; returns its rules, and the entries as written."""
    rules: list[Rule] = []
    written: list[Mapping[str, Any]] = []
    for item in part.numbered(_EXAMPLE):
        before = len(part.problems)
        parts = item.mapping()
        values = {key: _rule_values(key, value, names, axes) for key, value in parts.items()}
        if not parts and len(part.problems) == before:
            # An empty rule agrees with every cell.
            item.report("is empty and would drop everything; name an axis and a value")
        if len(part.problems) == before:
            rules.append(Rule(values, item.place))
            written.append(item.plain())
    return tuple(rules), tuple(written)


def _rule_values(key: str, part: Part, names: SizeNames, axes: Collection[str]) -> tuple[Any, ...]:
    # For a key that holds lists, a list is one value and not several.
    is_one = not part.is_list or (key in trial_keys() and trial_keys()[key].is_list)
    parts = [part] if is_one else part.items()
    # The seed is no key of the config, so its values are not checked; any may be named.
    if key == SEED:
        return tuple(seed.plain() for seed in parts)
    if key not in axes:
        known = [*axes, SEED]
        text = f"is not an axis of this sweep; axes: {listed(known)}{did_you_mean(key, known)}"
        part.report_key(text)
        return ()
    return tuple(setting.value for setting in names.settings(key, parts))
