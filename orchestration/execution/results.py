"""Table at the end of a launch, from the stages' own records."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from gigatok.names import METRICS, QUANTITIES, Metric, result_columns, with_computed
from gigatok.text.command_lines import command
from orchestration.execution.progress import Progress
from orchestration.plan.graph import Plan
from orchestration.runs.stage_records import Done
from orchestration.sweep.formulas.expressions import Value
from orchestration.sweep.formulas.quantities import computed
from orchestration.yaml.source import show

BITS = "bits_per_image"
MOST_TRIALS = 40
EDGES = 4
"""Characters of a table's first column that are not its text."""


def trial_metrics(progress: Progress) -> dict[str, dict[str, float]]:
    """Collect the final scores of each trial's complete stages; a missing one is absent."""
    done = {key: folder.done() for key, folder in progress.folders.items()}
    return {
        trial.trial.name: merged_scores(done[key] for key in trial.stages.values())
        for trial in progress.plan.trials
    }


def merged_scores(stages: Iterable[Done | None]) -> dict[str, float]:
    """Merge the final scores of a trial's stages, and add those that follow from them.

    Args:
        stages: in the order of the graph; None: it is not complete.
    """
    # Where two report a metric of one name, the later one wins.
    merged: dict[str, float] = {}
    for done in stages:
        merged |= done.metrics if done else {}
    return with_computed(merged)


def trial_facts(plan: Plan) -> dict[str, dict[str, Value]]:
    """Collect what follows from each config: what the sweep derives, and bits per image."""
    facts = [(one.trial.derived, computed(BITS, one.trial.config)) for one in plan.trials]
    names = plan.trials[0].trial.derived if plan.trials else ()
    # Shown once, under the sweep's own name for it.
    shown = not any(all(derived[name] == bits for derived, bits in facts) for name in names)
    heading = QUANTITIES[BITS].heading
    return {
        one.trial.name: {**derived, **({heading: bits} if shown and bits is not None else {})}
        for one, (derived, bits) in zip(plan.trials, facts, strict=True)
    }


def launch_json(progress: Progress) -> dict[str, Any]:
    """Convert a launch into JSON data; a metric that is missing or not finite is null."""
    metrics = trial_metrics(progress)
    names = sorted({name for values in metrics.values() for name in values})
    return {
        "plan": progress.plan.key,
        "interrupted": progress.interrupted,
        "ran": sorted(progress.ran),
        "reused": sorted(progress.reused),
        "done_elsewhere": sorted(progress.done_elsewhere),
        "stages": dict(progress.states),
        "failures": {
            key: {"kind": f.kind, "message": f.message, "folder": str(progress.folders[key].path)}
            for key, f in progress.failures.items()
        },
        "trials": {
            trial: {name: _finite(values.get(name)) for name in names}
            for trial, values in metrics.items()
        },
    }


def _finite(value: float | None) -> float | None:
    # JSON has no NaN and no infinity; other programs refuse files that hold them.
    return value if value is not None and math.isfinite(value) else None


def result_tables(
    metrics: Mapping[str, Mapping[str, float]],
    width: int,
    facts: Mapping[str, Mapping[str, Value]] | None = None,
) -> RenderableType:
    """Lay facts and metrics down and trials across, in as many tables as the width asks for.

    Args:
        metrics: by trial and name; one that does not exist shows as an en dash.
        width: characters of a line.
        facts: by trial and heading: what follows from a config.
    """
    facts = facts or {}
    known = list(dict.fromkeys(name for of in facts.values() for name in of))
    shown = [
        METRICS[name] for name in result_columns() if any(name in m for m in metrics.values())
    ]
    heads = [*known, *(metric.heading for metric in shown)]
    kept = dict(itertools.islice(metrics.items(), MOST_TRIALS))
    columns = {
        trial: [
            *(_fact(facts[trial].get(name)) for name in known),
            *(format_metric(metric, mine) for metric in shown),
        ]
        for trial, mine in kept.items()
    }
    # Every table repeats the column of metric names, so that each block has the same width left.
    left = width - max(map(len, heads), default=0) - EDGES
    tables: list[RenderableType] = [
        _table(heads, {trial: columns[trial] for trial in block}) for block in _fit(columns, left)
    ]
    if len(kept) < len(metrics):
        table = command("analysis", "table", "SWEEP")
        tables.append(f"… {len(metrics) - len(kept)} more trials: {table}")
    return Group(*tables)


def _fit(columns: Mapping[str, Sequence[str]], width: int) -> list[list[str]]:
    """Split trials into blocks whose columns fit side by side; a name breaks between words."""
    blocks: list[list[str]] = []
    left = 0
    for trial, cells in columns.items():
        needed = max(map(len, [*trial.split(), *cells])) + EDGES - 1
        if not blocks or needed > left:
            blocks.append([])
            left = width
        blocks[-1].append(trial)
        left -= needed
    return blocks


def _table(heads: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table()
    table.add_column("metric", no_wrap=True)
    for trial in columns:
        table.add_column(trial, justify="right", header_style="bold")
    for index, head in enumerate(heads):
        table.add_row(head, *(cells[index] for cells in columns.values()))
    return table


def _fact(value: Value | None) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else show(value)


def format_metric(metric: Metric, values: Mapping[str, float]) -> str:
    """Write a value with its standard error, in the metric's own precision."""
    value = values.get(metric.name)
    if value is None:
        return "–"
    text = metric.text(value)
    error = values.get(metric.standard_error or "")
    return text if error is None else f"{text} ± {metric.text(error)}"
