"""Differences between the settings of a table besides the question, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import polars as pl

from analysis.statistics.groups import UNRECORDED, Group, groups, show
from analysis.store.runs import measured, params_of
from gigatok.names import METRICS, PARAM_SEED, PARAM_TOKENIZER

# FID is biased upwards by a term that falls with the number of images; KID has no such bias.
FID_NEEDS_IMAGES = 10_000
"""Below, the bias of FID is larger than most differences (Binkowski et al., arXiv 1801.01401)."""
_SHA = 10
"""Digits that name a commit; all forty would fill a line of a caption."""

V = TypeVar("V")


def find_confounds(runs: pl.DataFrame) -> list[str]:
    """List everything that could explain a difference besides the axes of the sweep."""
    found = groups(runs)
    return [sentence for check in _CHECKS for sentence in check(runs, found)]


def _mixed_protocols(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    for name in measured(runs):
        ways = _by_value(
            (p or UNRECORDED, group) for group in found for p in group.protocols(name)
        )
        # An unrecorded protocol is another one: it may be the same, which nobody can tell any
        # more.
        if len(ways) > 1:
            listing = "; ".join(f"{who}: {way}" for way, who in ways.items())
            yield f"{METRICS[name].label} was measured in {len(ways)} ways: {listing}."


def _training_lengths(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    """Compare training lengths in images: steps times batch size."""
    for part, what in (("tokenizer", "Tokenizers"), ("generator", "AR probes")):
        # Steps alone say nothing where batch sizes differ.
        steps, batch = f"{part}.steps", f"{part}.batch_size"
        if steps in _axes(runs) or not {steps, batch} <= set(runs.columns):
            continue
        lengths = _by_value(
            (row[steps] * row[batch], group)
            for group in found
            for row in group.rows
            if row[steps] is not None and row[batch] is not None
        )
        if len(lengths) > 1:
            listing = "; ".join(f"{who}: {n:,}" for n, who in sorted(lengths.items()))
            yield f"{what} were trained on different numbers of images ({listing})."


def _teachers(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    column = "tokenizer.teacher"
    if column not in runs.columns or column in _axes(runs):
        return
    regularised = [group for group in found if group.regularised]
    teachers = _by_value((show(row[column]), group) for group in regularised for row in group.rows)
    if len(teachers) > 1:
        listing = "; ".join(f"{name}: {who}" for name, who in teachers.items())
        yield f"Semantic regularisation used different teachers ({listing})."


def _other_settings(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    """List params that vary without being an axis, unless another check names them."""
    axes = _axes(runs)
    for column in params_of(runs):
        # An axis such as a size without a letter is logged as several params.
        is_part_of_axis = any(column.startswith(f"{axis}.") for axis in axes)
        if column in axes or column in _CHECKED or is_part_of_axis:
            continue
        values = _by_value((show(row[column]), group) for group in found for row in group.rows)
        if len(values) > 1:
            listing = "; ".join(f"{value}: {who}" for value, who in values.items())
            yield f"{column} differs, though it is no axis ({listing})."


# Columns that a check above names in better words, and those that differ by intention.
_CHECKED = {
    PARAM_SEED,
    PARAM_TOKENIZER,
    "tokenizer.teacher",
    *(f"{part}.{key}" for part in ("tokenizer", "generator") for key in ("steps", "batch_size")),
}


def _seeds(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    # Complete ones: a seed that failed late has some of the numbers and shows as missing
    # elsewhere.
    counts = _by_value((group.complete, group) for group in found)
    if len(counts) > 1:
        listing = "; ".join(f"{n}: {who}" for n, who in sorted(counts.items()))
        yield f"Settings have different numbers of complete seeds ({listing})."
    elif max(counts) < 2:
        yield "No setting has a second seed: no difference can be told from chance."


def _code(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    # A trial's stages may come from several commits, which its tag joins with commas.
    versions = sorted({sha for text in runs["git_sha"].drop_nulls() for sha in text.split(",")})
    if len(versions) > 1:
        short = (sha[:_SHA] for sha in versions)
        yield f"Stages ran from {len(versions)} versions of the code: {_listed(short)}."
    if runs["git_dirty"].any():
        yield "Some stages ran from code with uncommitted changes."


def _few_images(runs: pl.DataFrame, found: Sequence[Group]) -> Iterable[str]:
    for score, column in (("rfid", "evaluation.num_images"), ("gfid", "sampling.num_images")):
        if score in measured(runs) and column in runs.columns:
            images = runs[column].min()
            if isinstance(images, int) and images < FID_NEEDS_IMAGES:
                yield (
                    f"{METRICS[score].label} is from {images:,} images; its bias at so few is "
                    "larger than most differences. Read the kernel distance (KID) with its error."
                )


_CHECKS: tuple[Callable[[pl.DataFrame, Sequence[Group]], Iterable[str]], ...] = (
    _mixed_protocols,
    _training_lengths,
    _teachers,
    _other_settings,
    _seeds,
    _code,
    _few_images,
)


def _axes(runs: pl.DataFrame) -> set[str]:
    return {axis for row in runs["axes"].to_list() for axis in row or ()}


def _by_value(pairs: Iterable[tuple[V, Group]]) -> dict[V, str]:
    """Map each value to the labels of the groups that have it."""
    found: dict[V, list[str]] = {}
    for value, group in pairs:
        found.setdefault(value, []).append(group.label)
    return {value: _listed(labels) for value, labels in found.items()}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
