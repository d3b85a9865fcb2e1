"""The result table of a sweep: a row per setting, seeds merged, footnotes that hide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from analysis.charts.grammar import Origin
from analysis.charts.records import Record
from analysis.statistics.groups import Group, choose_interval, groups, ways
from analysis.statistics.usual import folded_keys, usual_note, usual_values
from analysis.store.requests import RequestError
from analysis.store.runs import derived_of, measured, origin, params_of
from analysis.tables.columns import (
    Column,
    best_settings,
    constant_column,
    score_column,
    seeds_column,
    setting_column,
)
from analysis.tables.folding import folded_column
from analysis.tables.notes import absence_notes, head_notes, interval_notes, protocol_notes
from gigatok.names import METRICS, STEADIER, Metric, result_columns

BITS = "bits_per_image"
BEST_NOTE = "Marked: the best mean of a column, which need not be better beyond chance."


@dataclass(frozen=True)
class ResultTable:
    """A finished table.

    Attributes:
        title: the sweep, its scale and its question.
        head: column heads.
        rows: cell texts, one tuple per setting.
        numeric: whether a column holds numbers and so is aligned to the right.
        notes: what every reader of the table must know, protocols included.
        records: the numbers behind the cells, in the schema of every figure and table; none of a
            table of words.
        origins: where the numbers are from.
        names: what users call the columns, as `--columns` takes them; none of a table of words.
        best: row and column of each best value.
        drops: columns that go where a line is too short for all, in this order.
        brief_notes: the same with protocols cut, for a terminal; none of a table of words.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    notes: tuple[str, ...]
    records: tuple[Record, ...] = ()
    origins: tuple[Origin, ...] = ()
    names: tuple[str, ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()
    drops: tuple[int, ...] = ()
    brief_notes: tuple[str, ...] = ()


def result_table(
    runs: pl.DataFrame, columns: Sequence[str] | None = None, first: Sequence[str] = ()
) -> ResultTable:
    """Make the result table of what `load_runs` returned.

    Args:
        runs: one row per trial.
        columns: metrics and config keys wanted; keys stand before the metrics. A metric that no
            trial has is dropped, and named in the notes where it is expected. None: the metrics of
            every result table.
        first: metrics that stay longest where a line is too short for all.

    Raises:
        RequestError: a column is neither a metric nor a config key.
    """
    found = groups(runs)
    wanted, keys = _asked(runs, columns)
    shown = [METRICS[name] for name in wanted if name in set(measured(runs))]
    folded = folded_keys(found, keys)
    apart = _settings_columns(runs, found, folded)
    made = [*apart, *_columns(runs, found, keys, shown)]
    notes, brief_notes = _notes(runs, found, wanted, shown)
    settings = [usual_note(usual_values(found, folded))] if folded else []
    return ResultTable(
        title=": ".join(filter(None, (sweep_and_scale(runs), runs["question"][0]))),
        head=tuple(column.head for column in made),
        rows=tuple(zip(*(column.cells for column in made), strict=True)),
        numeric=tuple(column.numeric for column in made),
        notes=(*settings, *notes),
        # Setting by setting, as the rows are.
        records=tuple(
            record
            for row in range(len(found))
            for column in made
            for record in column.records[row : row + 1]
            if record
        ),
        origins=tuple(
            origin(row, [metric.name for metric in shown]) for group in found for row in group.rows
        ),
        names=tuple(column.name for column in made),
        best=frozenset((row, at) for at, column in enumerate(made) for row in column.best),
        drops=_drops(found, shown, apart, len(made), first),
        brief_notes=(*settings, *brief_notes),
    )


def _settings_columns(
    runs: pl.DataFrame, found: Sequence[Group], folded: Sequence[str]
) -> list[Column]:
    """Make the columns that tell settings apart, of which many are one."""
    whole = [name for name in found[0].identity if name not in folded]
    made = [setting_column(runs, found, name) for name in whole]
    return [*made, folded_column(found, folded)] if folded else made


def _columns(
    runs: pl.DataFrame, found: Sequence[Group], keys: Sequence[str], shown: Sequence[Metric]
) -> list[Column]:
    """Make the other columns: what follows from settings, keys asked for, seeds, scores."""
    kind = choose_interval(found)
    identity = found[0].identity
    constant = dict.fromkeys((*_following(runs), *keys))
    return [
        *(constant_column(runs, found, name) for name in constant if name not in identity),
        seeds_column(found),
        *(score_column(found, metric, kind) for metric in shown),
    ]


def _notes(
    runs: pl.DataFrame,
    found: Sequence[Group],
    wanted: Sequence[str],
    shown: Sequence[Metric],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write all notes: with whole protocols, and with their start alone."""
    names = [metric.name for metric in shown]
    has_best = any(best_settings(found, metric) for metric in shown)
    above = interval_notes(found, shown, choose_interval(found))
    below = [
        *head_notes(found, names),
        *([BEST_NOTE] if has_best else []),
        *absence_notes(runs, wanted, set(measured(runs))),
    ]
    whole, brief = (protocol_notes(found, names, brief=brief) for brief in (False, True))
    return (*above, *whole, *below), (*above, *brief, *below)


def _asked(runs: pl.DataFrame, columns: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Tell the metrics from the config keys among the columns asked for.

    Raises:
        RequestError: a column is neither.
    """
    if columns is None:
        return list(result_columns()), []
    keys = [*params_of(runs), *derived_of(runs), BITS]
    for name in columns:
        if name not in METRICS and name not in keys:
            near = get_close_matches(name, [*METRICS, *keys], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RequestError(
                f"no metric or config key {name!r} to show{hint}; metrics are "
                f"{', '.join(METRICS)}; keys are those of the sweep's trials"
            )
    metrics = [name for name in columns if name in METRICS]
    return metrics, [name for name in columns if name not in METRICS]


def _drops(
    found: Sequence[Group],
    shown: Sequence[Metric],
    apart: Sequence[Column],
    count: int,
    first: Sequence[str],
) -> tuple[int, ...]:
    """Order the columns that may go where a line is short; what tells settings apart stays.

    Args:
        found: the settings.
        shown: metrics of the last columns.
        apart: the first columns, which tell settings apart.
        count: of all columns.
        first: metrics that stay longest.
    """
    leading = count - len(shown)
    names = [metric.name for metric in shown]
    same = [i for i, col in enumerate(apart) if len(apart) > 1 and len(set(col.cells)) == 1]

    def urgency(at: int) -> tuple[bool, bool, bool, bool, int]:
        # What is neither good nor bad, such as a size, tells least, and what was measured in
        # several ways compares few rows. FID of few images is mostly bias: where its KID was
        # measured, that stays longer.
        metric = shown[at]
        biased = STEADIER.get(metric.name) in names
        aimless = metric.better is None or len(ways(found, metric.name)) > 1
        return metric.name not in first, aimless, biased, not metric.headline, at

    metrics = sorted(range(len(shown)), key=urgency, reverse=True)
    return (*same, *(leading + at for at in metrics), *range(len(apart), leading - 1))


def _following(runs: pl.DataFrame) -> list[str]:
    """List what follows from the settings and is shown: what the sweep derives, bits per image."""
    derived = derived_of(runs)
    bits = runs[BITS]
    # Shown once, under the sweep's own name for it.
    named = any(
        runs[c].dtype.is_numeric() and runs[c].cast(pl.Float64).equals(bits, check_names=False)
        for c in derived
    )
    return [*derived, *([BITS] if bits.is_not_null().any() and not named else [])]


def sweep_and_scale(runs: pl.DataFrame) -> str:
    """Name a sweep with its scale, such as `decoder_scaling at scale micro`."""
    scales = ", ".join(dict.fromkeys(scale for scale in runs["scale"] if scale))
    return f"{runs['sweep'][0]} at scale {scales}" if scales else str(runs["sweep"][0])
