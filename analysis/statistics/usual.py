"""Values that most settings of a study with many axes have, and what sets a setting apart.

To name every axis of each setting would repeat in most places what is usual.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import mode

from analysis.statistics.groups import Group, short, show
from gigatok.names import PARAM_TOKENIZER

MOST_NAMED = 3
"""Columns that tell settings apart, the tokenizer's among them, up to which each is named."""


def folded_keys(found: Sequence[Group], asked: Collection[str] = ()) -> list[str]:
    """List the keys that are named where they are unusual: none of few, nor those asked for."""
    keys = list(found[0].identity) if found else []
    if len(keys) <= MOST_NAMED:
        return []
    return [key for key in keys if key != PARAM_TOKENIZER and key not in asked]


def usual_values(found: Sequence[Group], keys: Sequence[str]) -> dict[str, str]:
    """Find the value that most settings have, of each key, as it is shown."""
    return {key: mode(show(group.identity[key]) for group in found) for key in keys}


def prevailing(found: Sequence[Group]) -> dict[str, str]:
    """Find the values that more than half of the settings have; none where few keys vary.

    In a full grid none prevails, and each has to be named.
    """
    usual = usual_values(found, folded_keys(found))
    shown = {key: [show(group.identity[key]) for group in found] for key in usual}
    return {key: v for key, v in usual.items() if 2 * shown[key].count(v) > len(found)}


def unusual(group: Group, usual: Mapping[str, str]) -> str:
    """Name what a setting has otherwise, such as `entropy_weight=0.02`; "" where nothing."""
    values = {key: show(group.identity[key]) for key in usual}
    return _words({key: value for key, value in values.items() if value != usual[key]})


def usual_note(usual: Mapping[str, str], what: str = "a setting") -> str:
    """Say what holds where `what` does not say otherwise."""
    return f"Where {what} does not say otherwise: {_words(usual)}."


def _words(values: Mapping[str, str]) -> str:
    return " ".join(f"{short(key)}={value}" for key, value in values.items())
