"""The axis that a study is drawn over, in figure, report and page alike."""

from __future__ import annotations

import polars as pl

from analysis.figures.settings import DECODER, ENCODER, SIZE_OF
from analysis.statistics.groups import columns_of_axis
from analysis.store.runs import measured
from gigatok.names import PARAM_TOKENIZER


def main_axis(runs: pl.DataFrame) -> str:
    """Choose the size of the tokenizer where the sweep varies it, else its first axis that varies.

    Axes are in the order of the YAML; of a `zip` the first key counts. A setting may change the
    tokenizer's size as well: that setting is the question then, and not the size.

    Args:
        runs: trials of one study or several.

    Returns:
        A config key; of a size its parameters, where they were measured.
    """
    axes = list(dict.fromkeys(axis for row in runs["axes"].to_list() for axis in row or ()))
    found = {axis: column for axis in axes if (column := _varying(runs, axis)) is not None}
    if found.keys() & {DECODER, ENCODER}:
        key = DECODER if _is_grid(runs, found) else PARAM_TOKENIZER
    else:
        key = next(iter(found), PARAM_TOKENIZER)
    size = SIZE_OF.get(key, "")
    return size if size in measured(runs) else found.get(key, key)


def _varying(runs: pl.DataFrame, axis: str) -> str | None:
    """Find the first column of an axis that has several values."""
    return next((c for c in columns_of_axis(runs, axis) if runs[c].n_unique() > 1), None)


def _is_grid(runs: pl.DataFrame, found: dict[str, str]) -> bool:
    """Tell whether encoder and decoder vary apart, so that neither decides the other."""
    if not {DECODER, ENCODER} <= found.keys():
        return False
    pairs = runs.select(found[DECODER], found[ENCODER])
    return pairs.n_unique() > max(column.n_unique() for column in pairs)
