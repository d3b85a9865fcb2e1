"""Cells that a sweep removes from the product of its axes (`exclude`) or adds (`include`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestration.sweep.grid.expansion import SEED, Rule
from orchestration.sweep.settings.keys import RANK_AXIS, Checker, Setting, trial_keys
from orchestration.sweep.settings.scales import Scale
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    did_you_mean,
    entries,
    items,
    listed,
    show,
)

Choices = dict[str, tuple[Setting, ...]]


@dataclass(frozen=True)
class Included:
    """Entry of `include`: one cell, or several if a key has several values.

    Attributes:
        where: key of the entry, such as `include[0]`.
        choices: key -> its values; all other keys come from the scale and `set`.
    """

    where: str
    choices: Choices
    place: Place

    def overridden(self, overrides: Mapping[str, Setting]) -> Included:
        """Replace the values of the keys that `--set` gives by its one value."""
        choices = {k: (overrides[k],) if k in overrides else v for k, v in self.choices.items()}
        return replace(self, choices=choices)


def read_include(
    node: Node | None, checker: Checker, solved: Mapping[str, Node]
) -> tuple[Included, ...]:
    """Check `include`; entries with a problem are left out.

    Args:
        node: the list.
        checker: checks values, and receives what is wrong.
        solved: the keys of `solve`.
    """
    example = " of mappings; write `- {tokenizer.decoder: L, generator.size: S}`"
    found: list[Included] = []
    for index, item in enumerate(items(node, "include", checker.problems, example)):
        where = f"include[{index}]"
        before = len(checker.problems)
        parts = entries(item, where, checker.problems)
        if not parts and len(checker.problems) == before:
            text = "is empty; name keys and values, such as {tokenizer.decoder: L}"
            checker.problems.append(Problem(item.place, where, text))
        choices = {k: _included(k, v, f"{where}.{k}", checker, solved) for k, v in parts.items()}
        entry = Included(where, {k: row for k, row in choices.items() if row}, item.place)
        # The same entry twice, in whatever order of keys and values, is a mistake of copying.
        twin = next((other for other in found if _values(other) == _values(entry)), None)
        if len(checker.problems) == before and twin is not None and entry.choices:
            text = f"is {twin.where} of line {twin.place.line} again; keep one"
            checker.problems.append(Problem(item.place, where, text))
        if len(checker.problems) == before and entry.choices:
            found.append(entry)
    return tuple(found)


def _values(entry: Included) -> dict[str, list[str]]:
    return {
        key: sorted(repr(choice.value) for choice in row) for key, row in entry.choices.items()
    }


def _included(
    key: str, node: Node, where: str, checker: Checker, solved: Mapping[str, Node]
) -> tuple[Setting, ...]:
    """Read the values of a key of an entry, one or a list; empty after a problem was reported."""
    known = trial_keys().get(key)
    if known is not None and known.is_runtime:
        report_runtime(node, where, checker.problems)
        return ()
    if key in solved:
        text = f"is solved for at line {solved[key].key_place.line}; keep one"
        checker.problems.append(Problem(node.key_place, where, text))
        return ()
    # An unknown key is passed on as a single value: the checker reports it once.
    is_grid = isinstance(node.value, tuple) and known is not None and not _is_one(key, node)
    nodes = node.value if is_grid and isinstance(node.value, tuple) else (node,)
    if not nodes:
        text = "is empty; give at least one value"
        checker.problems.append(Problem(node.place, where, text))
    settings = [checker.setting(key, item, where, RANK_AXIS) for item in nodes]
    row = tuple(setting for setting in settings if setting is not None)
    report_repeats(row, where, checker.problems)
    return row


def _is_one(key: str, node: Node) -> bool:
    """Tell whether a list is one value of a key that holds lists, and not several values."""
    lists = isinstance(node.value, tuple) and any(isinstance(i.value, tuple) for i in node.value)
    return trial_keys()[key].is_list and not lists


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
            if key not in entry.choices:
                text = f"lacks {key}, which scale {scale.name} does not give; must be "
                text += f"{trial_keys()[key].allowed}; name it in the entry"
                problems.append(Problem(entry.place, entry.where, text))


def report_runtime(node: Node, where: str, problems: list[Problem]) -> None:
    """Report that a key cannot vary."""
    text = "changes how a stage runs, not what it computes, so it cannot vary; use `set`"
    problems.append(Problem(node.key_place, where, text))


def report_repeats(settings: Sequence[Setting], where: str, problems: list[Problem]) -> None:
    """Report values that stand in a list twice."""
    seen: dict[str, Setting] = {}
    for setting in settings:
        # By `repr`, since 1 and true are equal in Python.
        if repr(setting.value) in seen:
            text = f"got {show(setting.written)} twice; values must differ"
            problems.append(Problem(setting.place, where, text))
        seen[repr(setting.value)] = setting


def read_exclude(
    node: Node | None, checker: Checker, declared: Sequence[str]
) -> tuple[tuple[Rule, ...], tuple[Mapping[str, Any], ...]]:
    """Check `exclude` over the declared axes; returns its rules, and the entries as written."""
    example = " of mappings; write `- {tokenizer.decoder: L, generator.size: S}`"
    rules: list[Rule] = []
    written: list[Mapping[str, Any]] = []
    for index, item in enumerate(items(node, "exclude", checker.problems, example)):
        where = f"exclude[{index}]"
        before = len(checker.problems)
        parts = entries(item, where, checker.problems)
        values = {k: _rule_values(k, v, where, checker, declared) for k, v in parts.items()}
        if not parts and len(checker.problems) == before:
            # An empty rule agrees with every cell.
            text = "is empty and would drop everything; name an axis and a value"
            checker.problems.append(Problem(item.place, where, text))
        if len(checker.problems) == before:
            rules.append(Rule(values, item.place))
            written.append({key: value.plain() for key, value in parts.items()})
    return tuple(rules), tuple(written)


def _rule_values(
    key: str, node: Node, where: str, checker: Checker, declared: Sequence[str]
) -> tuple[Any, ...]:
    where = f"{where}.{key}"
    # The seed is no key of the config, so no checker knows it; any value may be named.
    if key == SEED:
        seeds = node.value if isinstance(node.value, tuple) else (node,)
        return tuple(seed.plain() for seed in seeds)
    if key not in declared:
        names = [*declared, SEED]
        text = f"is not an axis of this sweep; axes: {listed(names)}{did_you_mean(key, names)}"
        checker.problems.append(Problem(node.key_place, where, text))
        return ()
    # For a key that holds lists, a list is one value and not several.
    one = trial_keys()[key].is_list or not isinstance(node.value, tuple)
    nodes = (node,) if one else items(node, where, checker.problems)
    settings = [checker.setting(key, item, where, RANK_AXIS) for item in nodes]
    return tuple(setting.value for setting in settings if setting is not None)
