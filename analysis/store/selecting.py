"""Which trials of a table are shown, by the values of their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import polars as pl

from analysis.store.requests import RequestError
from analysis.store.runs import derived_of, params_of


def matching(runs: pl.DataFrame, conditions: Sequence[str]) -> pl.DataFrame:
    """Keep the trials that meet every condition.

    Args:
        runs: a row per trial.
        conditions: `KEY=VALUE`, or `KEY=VALUE,VALUE` for any of several; a key's last part is
            enough where one key ends so, and `none` is the value of a key that a trial lacks.

    Raises:
        RequestError: a key that the trials lack, or a condition that no trial is left to meet.
    """
    for condition in conditions:
        key, sign, given = condition.partition("=")
        if not sign:
            raise RequestError(f"--where {condition}: give KEY=VALUE, or KEY=VALUE,VALUE")
        name = known_name(key, "--where", [*params_of(runs), *derived_of(runs)])
        values = [_plain(value) for value in runs[name]]
        wanted = {_plain(value.strip()) for value in given.split(",")}
        kept = runs.filter(pl.Series([value in wanted for value in values], dtype=pl.Boolean))
        if kept.is_empty():
            there = ", ".join(dict.fromkeys(values))
            raise RequestError(f"--where {condition}: no trial; {name} is {there}")
        runs = kept
    return runs


def _plain(value: object) -> str:
    """Write a value so that `0.50` and .5, `true` and True are one."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    try:
        return repr(float(str(value)))
    except ValueError:
        return str(value)


def known_name(name: str, option: str, names: Iterable[str]) -> str:
    """Complete a shortened name, such as `lr` for `tokenizer.lr`.

    Args:
        name: as it was given.
        option: that it was given to, for the error.
        names: all that it may be.

    Raises:
        RequestError: none of the names, or the end of several; the message lists them.
    """
    found = list(names)
    ends = [known for known in found if known.rpartition(".")[2] == name]
    if name in found or len(ends) == 1:
        return name if name in found else ends[0]
    near = get_close_matches(name, found, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RequestError(f"{option} {name}: there are {', '.join(found) or 'none'}{hint}")
