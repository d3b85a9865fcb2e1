"""Studies beside each other: what each found best, what differs in their settings."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from analysis.statistics.groups import choose_interval, groups, show
from analysis.store.runs import measured, params_of
from gigatok.names import METRICS, PARAM_SEED, PARAM_TOKENIZER, result_columns

Studies = Mapping[str, pl.DataFrame]
"""Name of a study -> its trials."""


def shared_metrics(studies: Studies) -> list[str]:
    """List the results that every study has."""
    first, *rest = [measured(runs) for runs in studies.values()]
    return [name for name in first if all(name in other for other in rest)]


def together(studies: Studies) -> pl.DataFrame:
    """Join the trials of all studies; a setting that one lacks is null there."""
    # "relaxed": a setting may be whole numbers in one study and fractions in another.
    return pl.concat(studies.values(), how="diagonal_relaxed")


def beside(studies: Studies) -> pl.DataFrame:
    """Make a row per metric and study: `metric`, `study`, `best` setting, its `value`, `protocol`.

    Only values of one protocol compare; the column says which it was.
    """
    rows = []
    for study, runs in studies.items():
        found = groups(runs)
        kind = choose_interval(found)
        # Sizes have no better direction, so that none of them is the best.
        for name in [n for n in result_columns() if n in measured(runs) and METRICS[n].better]:
            have = [(g, e) for g in found if (e := g.estimate(name, kind)) is not None]
            if have:
                # `min` finds the best of either direction.
                sign = -1.0 if METRICS[name].better == "higher" else 1.0
                # The best mean over seeds, not the best seed, which would favour settings with
                # many of them.
                best, estimate = min(have, key=lambda pair: sign * pair[1].mean)
                protocol = " | ".join(best.protocols(name))
                metric = METRICS[name]
                value = estimate.mean * metric.factor
                rows.append((metric.title, study, best.label, value, len(have), protocol))
    columns = {
        "metric": pl.String(),
        "study": pl.String(),
        "best": pl.String(),
        "value": pl.Float64(),
        "of settings": pl.Int64(),
        "protocol": pl.String(),
    }
    order = [METRICS[name].title for name in result_columns()]
    table = pl.DataFrame(rows, columns, orient="row")
    # An Enum sorts by its place in the list: as in every result table, not by the alphabet.
    return table.sort(pl.col("metric").cast(pl.Enum(order)), maintain_order=True)


def setting_differences(studies: Studies) -> pl.DataFrame:
    """List the settings whose values differ between studies: `setting`, a column for each."""
    names = dict.fromkeys(name for runs in studies.values() for name in params_of(runs))
    rows = []
    for name in names:
        # Seeds are repetitions, and the tokenizer's name only repeats its sizes, which are listed.
        if name in (PARAM_SEED, PARAM_TOKENIZER):
            continue
        values = [_values(runs, name) for runs in studies.values()]
        if len(set(values)) > 1:
            rows.append((name, *values))
    columns = ["setting", *studies]
    return pl.DataFrame(rows, dict.fromkeys(columns, pl.String()), orient="row")


def _values(runs: pl.DataFrame, name: str) -> str:
    if name not in runs.columns:
        return ""
    found = runs[name].unique(maintain_order=True).to_list()
    texts = [show(value, "") for value in found]
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "")
