"""Settings of a study with many axes: one column that says what is unusual about each.

A column for every axis would leave no room for results.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.statistics.groups import Group
from analysis.statistics.usual import folded_keys, unusual, usual_values
from analysis.tables.columns import Column

USUAL = "usual"


def folded_column(found: Sequence[Group], keys: Sequence[str]) -> Column:
    """Make the column of what sets each setting apart from the usual one."""
    usual = usual_values(found, keys)
    cells = tuple(unusual(group, usual) or USUAL for group in found)
    return Column("setting", "setting", cells, numeric=False)


def brief_labels(found: Sequence[Group]) -> list[str]:
    """Name settings by their tokenizer and what is unusual about each; few keys are said whole."""
    keys = folded_keys(found)
    if not keys:
        return [group.label for group in found]
    usual = usual_values(found, keys)
    return [" ".join(filter(None, (g.tokenizer, unusual(g, usual)))) for g in found]
