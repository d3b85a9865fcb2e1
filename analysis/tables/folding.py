"""Settings of a study with many axes: one column that says what is unusual about each.

A column for every axis would leave no room for results, and repeat in most rows what is usual.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import mode

from analysis.statistics.groups import Group, short, show
from analysis.tables.columns import Column
from gigatok.names import PARAM_TOKENIZER

MOST_COLUMNS = 3
"""Columns that tell settings apart, the tokenizer's among them; more are folded into one."""
USUAL = "usual"


def folded_keys(found: Sequence[Group], asked: Collection[str]) -> list[str]:
    """List the keys that share a column: none of few, nor those that a reader asked to see."""
    keys = list(found[0].identity)
    if len(keys) <= MOST_COLUMNS:
        return []
    return [key for key in keys if key != PARAM_TOKENIZER and key not in asked]


def folded_column(found: Sequence[Group], keys: Sequence[str]) -> Column:
    """Make the column of what sets each setting apart from the usual one."""
    usual = _usual(found, keys)
    cells = []
    for group in found:
        apart = [key for key in keys if show(group.identity[key]) != usual[key]]
        cells.append(_words(apart, {key: show(group.identity[key]) for key in apart}) or USUAL)
    return Column("setting", "setting", tuple(cells), numeric=False)


def brief_labels(found: Sequence[Group]) -> list[str]:
    """Name settings by their tokenizer and what is unusual about each; few keys are said whole."""
    keys = folded_keys(found, [])
    if not keys:
        return [group.label for group in found]
    cells = folded_column(found, keys).cells
    return [
        group.tokenizer if cell == USUAL else f"{group.tokenizer} {cell}"
        for group, cell in zip(found, cells, strict=True)
    ]


def usual_note(found: Sequence[Group], keys: Sequence[str]) -> str:
    """Say what a setting has where its row does not say otherwise."""
    return f"Where a setting does not say otherwise: {_words(keys, _usual(found, keys))}."


def _usual(found: Sequence[Group], keys: Sequence[str]) -> dict[str, str]:
    """Find the value that most settings have, of each key."""
    return {key: mode(show(group.identity[key]) for group in found) for key in keys}


def _words(keys: Sequence[str], values: dict[str, str]) -> str:
    return " ".join(f"{short(key)}={values[key]}" for key in keys)
