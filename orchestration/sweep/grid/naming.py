"""Names of trials: `S-B` for the tokenizer, `key=value` of varying keys, and the seed last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from gigatok.config import QuantizerConfig, TransformerSize, TrialConfig
from orchestration.sweep.formulas.quantities import size_label
from orchestration.sweep.grid.cells import Cell
from orchestration.sweep.settings.keys import TOKENIZER_SIZES
from orchestration.sweep.settings.settings import Setting

Rows = Sequence[Mapping[str, Setting]]
"""Choices of one dimension."""
Name = Callable[[Cell, TrialConfig], str]


def varying_keys(blocks: Iterable[Sequence[Rows]]) -> list[str]:
    """List the keys that take more than one value, in the order of the dimensions."""
    seen: dict[str, list[Any]] = {}
    alike: dict[str, bool] = {}
    first: list[frozenset[str]] = []
    for block in blocks:
        first.append(frozenset(key for rows in block for key in rows[0]))
        for rows in block:
            for key in rows[0]:
                values = [row[key].value for row in rows]
                # The first value alone is kept, to compare the others with.
                seen.setdefault(key, values[:1])
                alike[key] = alike.get(key, True) and all(v == seen[key][0] for v in values)
    # A key that only some blocks name varies, even if these give it a single value.
    everywhere = frozenset.intersection(*first)
    return [key for key in seen if not alike[key] or key not in everywhere]


def namer(
    block: Sequence[Rows],
    varying: Sequence[str],
    base: Mapping[str, Setting],
    solved: Mapping[str, str],
) -> Name:
    """Return a function that names the cells of a block.

    Args:
        block: the dimensions of the block, the seeds last.
        varying: keys that vary in the sweep.
        base: settings that no dimension gives.
        solved: config key -> key that the sweep solves for, such as `tokenizer.decoder.layers`.
    """
    shown = [(d, key) for d, rows in enumerate(block) for key in rows[0] if key in varying]
    # Both sizes are named as soon as one of them varies.
    pair = any(key in TOKENIZER_SIZES for key in (*varying, *solved))
    rest = [(d, key) for d, key in shown if key not in TOKENIZER_SIZES]
    found = [key for key in solved if key not in TOKENIZER_SIZES]
    short = _short_keys([*(key for key in varying if key not in TOKENIZER_SIZES), *found])
    # All labels in advance: naming a cell is then one lookup per dimension.
    parts = [(d, [f"{short[k]}={label}" for label in _labels(k, block[d])]) for d, k in rest]
    last = len(block) - 1
    before = [part for part in parts if part[0] != last]
    after = [part for part in parts if part[0] == last]
    ends = [_end(key, block, base, key in solved) for key in TOKENIZER_SIZES]
    # A sweep that varies nothing still needs a name for its only trial.
    has_pair = pair or not (varying or solved)

    def name(cell: Cell, trial: TrialConfig) -> str:
        words = ["-".join(end(cell, trial) for end in ends)] if has_pair else []
        words += [labels[cell[d]] for d, labels in before]
        words += [f"{short[key]}={_label(attrgetter(key)(trial))}" for key in found]
        return " ".join([*words, *(labels[cell[d]] for d, labels in after)])

    return name


def _end(key: str, block: Sequence[Rows], base: Mapping[str, Setting], is_solved: bool) -> Name:
    if is_solved:
        get = attrgetter(key)
        return lambda cell, trial: size_label(get(trial))
    for index, rows in enumerate(block):
        if key in rows[0]:
            labels = [_label(row[key].value) for row in rows]
            # Bound now, by the default argument: a closure would see the loop's last index.
            return lambda cell, trial, d=index: labels[cell[d]]  # type: ignore[misc]
    fixed = _label(base[key].value) if key in base else "?"
    return lambda cell, trial: fixed


def _short_keys(keys: list[str]) -> dict[str, str]:
    """Shorten each key to its last part, or keep it whole if two keys end alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def _labels(key: str, rows: Rows) -> list[str]:
    """Label the values of a key; files get their names if these differ."""
    whole = [_label(row[key].value) for row in rows]
    if not key.startswith("adopt."):
        return whole
    values = [row[key].value for row in rows]
    names = ["trained" if value is None else Path(value).name for value in values]
    # Two checkpoints may have one name in different folders; then whole paths tell them apart.
    return names if len(set(names)) == len(set(whole)) else whole


def _label(value: Any) -> str:
    if isinstance(value, TransformerSize):
        return size_label(value)
    if isinstance(value, QuantizerConfig):
        return value.label
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if value is None or isinstance(value, bool):
        # As YAML writes them.
        return {True: "true", False: "false", None: "null"}[value]
    # Written `1e6` or 1000000.0, a value gets one label.
    return str(value).removesuffix(".0")
