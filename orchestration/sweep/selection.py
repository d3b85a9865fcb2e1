"""Cells that a sweep takes out of the product of its axes, `exclude`, or adds to it, `include`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestration.sweep.config_keys import RANK_AXIS, Checker, Setting, trial_keys
from orchestration.sweep.expansion import SEED, Rule
from orchestration.sweep.scales import Scale
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
    """One entry of `include`: a cell of its own, or several where a key has several values.

    Attributes:
        where: such as `include[0]`.
        choices: key -> its values; all other keys are those of the scale and `set`.
    """

    where: str
    choices: Choices
    place: Place

    def overridden(self, overrides: Mapping[str, Setting]) -> Included:
        """With the one value of `--set` for the keys that it gives."""
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
    """The values of a key of an entry, a list or one; empty after reporting a problem."""
    known = trial_keys().get(key)
    if known is not None and known.is_runtime:
        report_runtime(node, where, checker.problems)
        return ()
    if key in solved:
        text = f"is solved for at line {solved[key].key_place.line}; keep one"
        checker.problems.append(Problem(node.key_place, where, text))
        return ()
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
    """Whether a list is one value of a key that holds lists, and not a list of them."""
    lists = isinstance(node.value, tuple) and any(isinstance(i.value, tuple) for i in node.value)
    return trial_keys()[key].is_list and not lists


def report_lacking(
    included: Iterable[Included],
    varied: Iterable[str],
    given: Iterable[str],
    scale: Scale,
    problems: list[Problem],
) -> None:
    """Axes that have no value in an entry of `include`, since neither `set` nor the scale has one.

    Args:
        included: the entries.
        varied: keys of axes and zip groups.
        given: keys of `set` and `--set`.
        scale: of the sweep.
        problems: receives what is wrong.
    """
    known = {*given, *scale.trial}
    open_ = [k for k in varied if k not in known and trial_keys()[k].field.is_required()]
    for entry in included:
        for key in open_:
            if key not in entry.choices:
                text = f"lacks {key}, which scale {scale.name} does not give; must be "
                text += f"{trial_keys()[key].allowed}; name it in the entry"
                problems.append(Problem(entry.place, entry.where, text))


def report_runtime(node: Node, where: str, problems: list[Problem]) -> None:
    """A key that cannot vary."""
    text = "changes how a stage runs, not what it computes, so it cannot vary; use `set`"
    problems.append(Problem(node.key_place, where, text))


def report_repeats(settings: Sequence[Setting], where: str, problems: list[Problem]) -> None:
    """Values that stand in a list twice."""
    seen: dict[str, Setting] = {}
    for setting in settings:
        if repr(setting.value) in seen:
            text = f"got {show(setting.written)} twice; values must differ"
            problems.append(Problem(setting.place, where, text))
        seen[repr(setting.value)] = setting


def read_exclude(
    node: Node | None, checker: Checker, declared: Sequence[str]
) -> tuple[tuple[Rule, ...], tuple[Mapping[str, Any], ...]]:
    """Check `exclude`, over the declared axes; also as written."""
    example = " of mappings; write `- {tokenizer.decoder: L, generator.size: S}`"
    rules: list[Rule] = []
    written: list[Mapping[str, Any]] = []
    for index, item in enumerate(items(node, "exclude", checker.problems, example)):
        where = f"exclude[{index}]"
        before = len(checker.problems)
        parts = entries(item, where, checker.problems)
        values = {k: _rule_values(k, v, where, checker, declared) for k, v in parts.items()}
        if not parts and len(checker.problems) == before:
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
    if key == SEED:
        seeds = node.value if isinstance(node.value, tuple) else (node,)
        return tuple(seed.plain() for seed in seeds)
    if key not in declared:
        names = [*declared, SEED]
        text = f"is not an axis of this sweep; axes: {listed(names)}{did_you_mean(key, names)}"
        checker.problems.append(Problem(node.key_place, where, text))
        return ()
    one = trial_keys()[key].is_list or not isinstance(node.value, tuple)
    nodes = (node,) if one else items(node, where, checker.problems)
    settings = [checker.setting(key, item, where, RANK_AXIS) for item in nodes]
    return tuple(setting.value for setting in settings if setting is not None)
